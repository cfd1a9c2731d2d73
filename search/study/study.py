"""A study: Optuna's trials, read and written as pieces of work on candidates.

Each Optuna trial is one *visit* of a candidate: trained up to a rung, or refused before training. A promoted
candidate comes back as another trial with the same parameters and trains on from its checkpoint, so a told
trial never changes, every sampler and optuna-dashboard understand the storage, and Optuna's own queue
(WAITING -> RUNNING, atomic) hands work to many machines.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from contest.candidate import Candidate
from contest.errors import UsageError, command
from contest.networks.options import Value
from search.candidates import to_candidate
from search.space import Space
from search.study.settings import StudySettings
from search.study.storage import ClaimTable, PatientStorage, StudyFullError, is_missing_file, open_storage, storage_url
from search.study.trial import (
    Proposal,
    Stage,
    TrialPrice,
    TrialRecord,
    TrialResult,
    key_of,
    record_of,
    result_to_json,
)


def directions(settings: StudySettings) -> list[str]:
    """Optuna's directions: the score falls, accuracy rises."""
    return {"constrained": ["minimize"], "target": ["maximize"], "pareto": ["minimize", "maximize"]}[settings.objective]


def _seed(settings: StudySettings, number: int) -> int:
    """A seed for the decision about trial `number`: workers have their own, or they would all propose the same."""
    text = f"{settings.seed}:{number}:{os.environ.get('CONTEST_WORKER', '0')}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def make_sampler(settings: StudySettings, number: int = 0) -> optuna.samplers.BaseSampler:
    """The sampler by name, for the trial of that number."""
    seed = _seed(settings, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if settings.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if settings.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=8
        )


WORKER = f"{socket.gethostname()}:{os.getpid()}"
MAX_RETRIES = 3
"""Deaths of workers over one piece of work after which it counts as failed (it may be what kills them)."""
FINISHED = "finished"
"""Study attribute: workers may go home."""
ACCOUNT = "account"
"""Study attribute: images of an epoch, images in all or the end of the time (Unix), the machine's speed, the plan."""


@dataclass(frozen=True)
class Work:
    """What a worker has taken on: it owns the claim for it."""

    trial: optuna.Trial
    key: str
    candidate: Candidate
    stage: Stage
    rung: int
    price: TrialPrice
    forecast: float | None = None

    def directory(self, study: Study) -> Path:
        """Where the candidate's checkpoints lie, whoever trains it and however often it is resumed."""
        return study.directory / "trials" / self.key


@dataclass(frozen=True)
class Snapshot:
    """A study at one moment: whatever is decided is decided from one of these."""

    settings: StudySettings
    space: Space
    records: Sequence[TrialRecord]
    waiting: bool
    """Whether the queue holds work."""
    account: Mapping[str, Any] | None
    """See `Study.account`."""
    seed: int
    """Of the next decision: of the study, how much has been tried, and which worker asks."""
    begun: int
    """How many of the networks that were asked for have been begun."""


class Study:
    """One study in a storage, with its settings and its directory.

    Args:
        directory: holds checkpoints and networks; all workers of a study must see it.
        settings: what was asked for.
        space: what is searched.
        storage: see `search.study.storage`.
    """

    def __init__(self, directory: Path, settings: StudySettings, space: Space, storage: PatientStorage) -> None:
        self.directory = directory
        self.settings = settings
        self.space = space
        self.storage = storage
        self.name = settings.identity or older_name(directory, storage)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.optuna = optuna.create_study(
                study_name=self.name,
                storage=storage,
                load_if_exists=True,
                directions=directions(settings),
                sampler=make_sampler(settings),
            )
        self.claims = ClaimTable(storage, self.name)
        self._parsed: dict[int, TrialRecord] = {}

    def close(self) -> None:
        """Let go of the database's connections."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    # reading

    def records(self) -> list[TrialRecord]:
        """Everything in the study that names a candidate, by number, in whatever state."""
        found = []
        for trial in self.optuna.get_trials(deepcopy=False):
            record = self._parsed.get(trial.number) or record_of(trial)
            if record is None:
                continue
            if trial.state.is_finished():
                self._parsed[trial.number] = record
            found.append(record)
        return found

    def finished(self) -> list[TrialRecord]:
        """Records that training has given a result, best known state of the study."""
        return [r for r in self.records() if r.result is not None]

    @property
    def account(self) -> Mapping[str, Any] | None:
        """What may be spent and what is planned; None where that was not written down."""
        found: Mapping[str, Any] | None = self.optuna.user_attrs.get(ACCOUNT)
        return found

    def snapshot(self) -> Snapshot:
        """The study as it is now."""
        records = self.records()
        trials = self.optuna.get_trials(deepcopy=False)
        return Snapshot(
            settings=self.settings,
            space=self.space,
            records=records,
            waiting=any(trial.state == TrialState.WAITING for trial in trials),
            account=self.account,
            seed=_seed(self.settings, len(trials)),
            begun=self.claims.taken(),
        )

    # writing

    def ask(self) -> optuna.Trial:
        """The next trial of Optuna's queue, or a new one."""
        # A sampler of its own for each trial: a study repeats exactly, whatever was interrupted before.
        self.optuna.sampler = make_sampler(self.settings, len(self.optuna.get_trials(deepcopy=False)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Heartbeat of storage")
            return self.optuna.ask()

    def values(self, trial: optuna.Trial) -> dict[str, Value]:
        """What the sampler chooses for `trial`, in the dimensions of the space."""
        with self.storage.together():
            return self.space.values(trial)

    def next_waiting(self) -> tuple[optuna.Trial, Proposal] | None:
        """The next trial of the queue, ours from now on, and what it stands for; None: another worker was faster."""
        trial = self.ask()
        todo = trial.user_attrs.get("todo")
        if todo is None and "fixed_params" not in self.storage.get_trial_system_attrs(trial._trial_id):
            self.refuse(trial, "another worker has taken what was waiting")  # Optuna has made a new trial instead
            return None
        values = self.values(trial)
        if todo is None:  # put into Optuna's queue by hand, by its parameters alone
            settings = self.settings
            candidate = to_candidate(values, epochs=settings.explore_epochs, seed=settings.seed)
            return trial, Proposal("long", values, candidate, 0, "")
        candidate = Candidate.from_json(todo["candidate"])
        retries, why, forecast = int(todo.get("retries", 0)), todo.get("why", ""), todo.get("forecast")
        more = {"why": why, "forecast": forecast, "retries": retries}
        return trial, Proposal(todo.get("stage", "long"), values, candidate, int(todo.get("rung", 0)), **more)

    def describe(self, trial: optuna.Trial, todo: Proposal, estimate: TrialPrice | None) -> None:
        """Write down what `trial` is about to do, before it does it."""
        work = {
            "key": key_of(todo.candidate),
            "candidate": todo.candidate.to_json(),
            "stage": todo.stage,
            "rung": todo.rung,
            "worker": WORKER,
            "retries": todo.retries,
            "forecast": todo.forecast,
            "why": todo.why,
            "estimate": asdict(estimate) if estimate else None,
        }
        trial.set_user_attr("work", work)

    def begin(self, trial: optuna.Trial, todo: Proposal, price: TrialPrice) -> Work | None:
        """Write down what `trial` is about to do and claim it; None: it is answered from the study, or refused."""
        self.describe(trial, todo, price)
        work = Work(trial, key_of(todo.candidate), todo.candidate, todo.stage, todo.rung, price, todo.forecast)
        slots = self.settings.trials if work.stage != "parent" else None
        dead = {r.number for r in self.records() if r.left_behind}
        try:
            owner = self.claims.claim(f"{work.key}:{work.rung}", trial.number, slots=slots, dead=dead)
        except StudyFullError as error:
            self.refuse(trial, str(error))
            return None
        if owner == trial.number:
            return work
        earlier = next((r for r in self.records() if r.number == owner), None)
        if earlier is None or earlier.result is None or earlier.state != "COMPLETE":
            state = earlier.reason or earlier.state.lower() if earlier else "taken"
            self.refuse(trial, f"the same as trial {owner} ({state})")
        else:
            self.answer(trial, earlier)
        return None

    def finish(self, work: Work, result: TrialResult) -> None:
        """Record the end of a training, or its stop at a rung.

        Raises what Optuna raises if another worker has been given this trial since.
        """
        work.trial.set_user_attr("result", result_to_json(result))
        self._told(work.trial, result, work.stage, work.forecast)

    def answer(self, trial: optuna.Trial, earlier: TrialRecord) -> None:
        """Record that `trial` repeats `earlier` and has its result."""
        trial.set_user_attr("answered_by", earlier.number)
        assert earlier.result is not None
        self._told(trial, earlier.result, earlier.stage, earlier.forecast)

    def _told(self, trial: optuna.Trial, result: TrialResult, stage: Stage, forecast: float | None) -> None:
        """What a training counts as is a constraint to Optuna, above 0 where it is violated."""
        accuracy, score = result.counts_as(self.settings, stage, forecast), result.price.total
        trial.set_constraint("accuracy", self.settings.violation(accuracy))
        values = {"constrained": [score], "target": [accuracy], "pareto": [score, accuracy]}
        self.optuna.tell(trial, values[self.settings.objective])

    def refuse(self, trial: optuna.Trial, reason: str) -> None:
        """Record that `trial` is not trained, and why."""
        trial.set_user_attr("reason", reason)
        self.optuna.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: optuna.Trial, reason: str) -> None:
        """Record that the training of `trial` failed; nobody will try it again."""
        trial.set_user_attr("reason", reason)
        self.optuna.tell(trial, state=TrialState.FAIL)

    def enqueue(
        self,
        params: Mapping[str, Any],
        candidate: Candidate,
        stage: Stage,
        rung: int,
        *,
        retries: int = 0,
        forecast: float | None = None,
        why: str = "",
    ) -> None:
        """Put work into the queue from which any worker takes it."""
        todo = {"candidate": candidate.to_json(), "stage": stage, "rung": rung, "retries": retries}
        attrs = {"todo": {**todo, "forecast": forecast, "why": why}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.optuna.enqueue_trial(dict(params), user_attrs=attrs)

    def waiting(self) -> bool:
        return self.storage.count(self.optuna._study_id, TrialState.WAITING) > 0

    def running(self) -> list[FrozenTrial]:
        if not self.storage.count(self.optuna._study_id, TrialState.RUNNING):
            return []
        return list(self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def abandoned(self) -> list[FrozenTrial]:
        """Trials that run by name only: their worker is silent for `grace_s`, or a process of this machine that no
        longer exists."""
        found = []
        stale = set(self.storage._get_stale_trial_ids(self.optuna._study_id))
        for trial in self.running():
            work = trial.user_attrs.get("work")
            orphan = work is None and _age_s(trial) > self.settings.grace_s
            if trial._trial_id in stale or orphan or (work and _process_is_gone(work["worker"])):
                found.append(trial)
        return found

    def reap(self) -> int:
        """Give the work of dead workers (see `abandoned`) back to the queue; how many there were."""
        dead = 0
        for trial in self.abandoned():
            try:
                if not self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL):
                    continue
            except optuna.exceptions.UpdateFinishedTrialError:
                continue  # another worker has reaped it
            dead += 1
            todo = trial.user_attrs.get("work") or trial.user_attrs.get("todo")
            if todo is not None:
                self._retry(trial, todo)
        return dead

    def _retry(self, trial: FrozenTrial, todo: dict[str, Any]) -> None:
        retries = int(todo.get("retries", 0)) + 1
        if retries <= MAX_RETRIES:
            candidate = Candidate.from_json(todo["candidate"])
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            more = {"forecast": todo.get("forecast"), "why": todo.get("why", "")}
            self.enqueue(params, candidate, todo["stage"], todo["rung"], retries=retries, **more)


def new_identity(directory: Path) -> str:
    """A name that no other study has, in any database: folders are renamed, copied and called alike."""
    return f"{directory.resolve().name}-{secrets.token_hex(4)}"


def older_name(directory: Path, storage: PatientStorage) -> str:
    """The name of a study without an identity (of an earlier version): its folder's, when it was begun.

    Where the database lies in the folder and holds one study it is that one, whatever the folder is called now.
    """
    own = str((directory / "study.db").resolve())
    if storage.engine.url.database == own:
        names = [str(study.study_name) for study in storage.get_all_studies()]
        if len(names) == 1:
            return names[0]
    return directory.resolve().name


def _age_s(trial: FrozenTrial) -> float:
    start = trial.datetime_start
    return 0.0 if start is None else (datetime.now() - start).total_seconds()


def _process_is_gone(worker: str) -> bool:
    host, _, pid = worker.rpartition(":")
    if host != socket.gethostname() or worker == WORKER:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


class NotBegunError(UsageError):
    """A directory has the settings of a study whose database holds nothing of it."""


def open_study(directory: Path, storage: str | None = None) -> Study:
    """The study in a directory, for reading or working. Raises UsageError if there is none, NotBegunError if there are
    only its settings: no database is made for them."""
    settings = StudySettings.load(directory)
    url = storage_url(storage or settings.storage, directory)
    opened = None
    if not is_missing_file(url):
        opened = open_storage(url, heartbeat_s=settings.heartbeat_s, grace_s=settings.grace_s)
    if opened is None or not opened.holds(settings.identity or older_name(directory, opened)):
        raise NotBegunError(
            f"{directory} holds a study that has not begun: nothing of it is in its database; begin it with "
            f"{command('search', '--resume', '--study', directory)}"
        )
    return Study(directory, settings, Space({}), opened)
