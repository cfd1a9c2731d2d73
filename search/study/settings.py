"""What a study was asked for: plain data, kept as `study.json` in the study directory."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from contest.errors import UsageError
from contest.files import write_text

Objective = Literal["constrained", "pareto", "target"]
Sampler = Literal["tpe", "nsga2", "random"]


@dataclass(frozen=True)
class StudySettings:
    """One study. Epochs count passes over the training split; scores are those of `rule`."""

    identity: str | None = None
    """The study's name in its database, whatever its folder is called; None in studies of earlier versions."""
    dataset: str = "cifar10"
    data: str | None = None
    """Folder with the data set; None: CONTEST_DATA, the cache, or a download."""
    rule: str = "lab"
    threshold: float = 0.9
    objective: Objective = "constrained"
    target_score: float | None = None
    sampler: Sampler = "tpe"
    seed: int = 0
    trials: int | None = 20
    images: int | None = None
    """Training images that may be seen in all; None: as the time, or the trials and their epochs, say."""
    budget_s: float | None = None
    explore_epochs: float = 10.0
    """Epochs of one trial of the explore stage, float and quantised together."""
    refine_epochs: float = 40.0
    """The same for the long trainings of the refine stage; 0: no refine stage."""
    float_epochs: float = 0.0
    """Epochs of the first float training that are enough; 0: as known of the data set."""
    teacher_epochs: float = 0.0
    """Epochs of a teacher that is trained once for the study; 0: none (unless `teachers` names some)."""
    teachers: tuple[str, ...] = ()
    """Network files from whose mean logits the refine stage learns."""
    answers: str | None = None
    """Folder of given teachers' answers, shared by studies; None: the study's own."""
    parents: tuple[str, ...] = ()
    """Files of float parents that stand for float trainings of the study."""
    starts: tuple[str, ...] = ()
    """Files and studies of the user's own to begin from."""
    taught_epochs: int = 0
    """Of the recipes that learn from the teacher (contest.candidate.Recipe)."""
    finalists: int = 3
    refined: int | None = None
    """How many of the best get a long training; None: as many as there are finalists."""
    variants: int = 2
    """Rounds of cheaper (or better) variants of the best refined candidate."""
    seeds: int = 1
    """Trainings of each refined candidate, with seeds of their own; the median counts."""
    rungs: tuple[float, ...] = (0.34, 1.0)
    """Fractions of the explore training at which a trial is paused and must be promoted to go on."""
    reduction: int = 3
    """Of that many paused trials, one is promoted (eta of successive halving)."""
    margin: float | None = None
    """Points (0.005) asked for above the threshold on validation; None: the lower confidence bound."""
    split_seed: int = 0
    space: dict[str, Any] = field(default_factory=dict)
    """Dimensions that are narrowed or fixed, as in a space file."""
    storage: str | None = None
    """URL of the shared database; None: SQLite in the study directory."""
    heartbeat_s: int = 30
    grace_s: int = 180

    def __post_init__(self) -> None:
        if self.objective == "target" and self.target_score is None:
            raise UsageError("--objective target needs the score to stay below: --target-score 0.01")
        if list(self.rungs) != sorted(set(self.rungs)) or not self.rungs or self.rungs[-1] != 1.0:
            raise UsageError(f"rungs {self.rungs} must rise and end with 1.0 (fractions of a trial's epochs)")
        if self.explore_epochs <= 0 or self.refine_epochs < 0:
            raise UsageError("epochs must be positive")
        if not 0 <= self.teacher_epochs < math.inf:
            raise UsageError(
                f"--teacher-epochs {self.teacher_epochs:g}: a teacher is trained for a number of epochs above 0, such "
                "as 30; 0 trains none"
            )
        if self.taught_epochs and not (self.teachers or self.teacher_epochs):
            raise UsageError("taught_epochs has nobody who answers: give a teacher (--teacher or --teacher-epochs)")
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"--threshold {self.threshold:g}: an accuracy lies between 0 and 1, such as 0.9 for 90 %")
        if self.budget_s is not None and self.budget_s <= 0:
            raise UsageError("--budget must be more than no time, such as 20s, 45m or 2h")
        if self.target_score is not None and not 0 < self.target_score < math.inf:
            raise UsageError(f"--target-score {self.target_score:g}: a score to stay below is above 0, such as 0.01")
        if self.margin is not None and not 0 <= self.margin < 1:
            raise UsageError(f"--margin {self.margin:g}: points of accuracy, such as 0.005, lie between 0 and 1")
        if self.images is not None and self.images <= 0:
            raise UsageError(f"--images {self.images}: training images to spend are more than none")
        if self.trials is None and self.budget_s is None and self.images is None:
            raise UsageError(
                "a study needs an end: give --trials N, and --images N or --budget TIME instead of it or beside it"
            )

    def violation(self, accuracy: float) -> float:
        """Above 0: infeasible, by that much accuracy. Without a threshold nothing is."""
        return self.threshold - accuracy if self.objective == "constrained" else 0.0

    @property
    def rule_name(self) -> str:
        """The rule's name, under which reports hold its score (`rule` may be a TOML file)."""
        from scoring.rules import load_rule

        return load_rule(self.rule).name

    @property
    def taught(self) -> bool:
        """Whether the study has a teacher."""
        return bool(self.teachers or self.teacher_epochs)

    @property
    def narrowed(self) -> dict[str, Any]:
        """What the study changes in the default space."""
        return {"taught_epochs": self.taught_epochs, **self.space}

    def save(self, directory: Path) -> None:
        write_text(directory / "study.json", json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n")

    @staticmethod
    def load(directory: Path) -> StudySettings:
        """Raises UsageError if the directory holds no study or one of another version."""
        path = directory / "study.json"
        if not path.is_file():
            raise UsageError(
                f"{directory} holds no study (no study.json): name a study's directory, or begin one with "
                "`contest search` without --resume"
            )
        try:
            data = json.loads(path.read_text())
            tuples = {name: tuple(data[name]) for name in ("rungs", "teachers", "parents", "starts") if name in data}
            return StudySettings(**{**data, **tuples})
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{path} is not a study of this version: {error}") from error
