"""Float parents: which is trained first, which goes on, and which architecture is worth a new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from contest.candidate import Candidate
from contest.errors import ContestError
from contest.networks.options import Value
from search.policy.compression import FILE_OVERHEAD, Pool, Setting
from search.policy.knowledge import REACHES, FloatParent, log_error
from search.policy.situation import Proposal, Situation
from search.space.candidates import float_candidate, seeds, whole
from search.space.space import Space
from search.study.trial import float_key
from search.trainers.protocol import Trainer

ANOTHER = "another architecture"
NEIGHBOURS = 12
"""Changed architectures among which a new parent is chosen."""
WORTH_A_PARENT = 0.03
"""Expected saving (log of the score) below which no further parent is trained."""


@dataclass(frozen=True)
class Parents:
    """Proposals of float trainings."""

    now: Situation

    def first(self) -> Proposal | None:
        """The best known candidate with the budget's own recipe, trained to its end without a pause."""
        found = [option for values in self._points() if (option := self._promise(values, self.now.plan.parent))]
        enough = [option for option in found if option.gain > 0]
        if enough:
            chosen = max(enough, key=lambda option: option.gain)
        elif found:  # nothing promises to reach the threshold: then the most accurate is what there is to have
            chosen = max(found, key=lambda option: option.forecast or 0.0)
        else:
            return None
        return replace(chosen, rung=len(self.now.settings.rungs) - 1, why="best known for this budget")

    def new(self) -> Proposal | None:
        """An architecture whose children promise more than those of the parents at hand, for what it costs."""
        best: Proposal | None = None
        for values in [*self._points(), *self._neighbours()]:
            option = self.of(values)
            if option is not None and (best is None or option.gain > best.gain):
                best = option
        return best

    def of(self, values: Mapping[str, Value], why: str = ANOTHER) -> Proposal | None:
        """The parent that `values` stand for, its gain in proportion to its cost; None where it is not worth it."""
        option = self._promise(values, max(self.now.plan.another or self.now.plan.parent, 1.0))
        if option is None or option.gain < WORTH_A_PARENT:
            return None
        share = self._share_after(option.candidate)
        return None if share is None else replace(option, gain=option.gain * share, why=why)

    def goes_on(self) -> Proposal | None:
        """A paused parent that still promises more than what exists."""
        best: Proposal | None = None
        for parent in self.now.known.parents.values():
            if parent.finished or self._begun_again(parent):
                continue
            pool = self.now.pool(parent.candidate, parent.values, self.now.long_epochs)
            options = _bits_around(pool, parent.values)
            left = self.now.budget.left() - self.now.budget.cost(parent.candidate, parent.macs, parent=True)
            if not options or left < 0:
                continue
            worth = self.now.gain.of(options, parent.key, parent.error)
            place = worth.best()
            gain = float(worth.gains[place])
            if gain > WORTH_A_PARENT and (best is None or gain > best.gain):
                forecast = 1 - 2 ** float(worth.means[place])
                best = Proposal(
                    "parent", parent.values, parent.candidate, parent.record.rung + 1, "goes on", gain, forecast
                )
        return best

    def _begun_again(self, parent: FloatParent) -> bool:
        return any(
            r.stage == "parent" and r.rung > parent.record.rung and float_key(r.candidate) == parent.key
            for r in self.now.known.records
        )

    def _points(self) -> list[dict[str, Value]]:
        return starting_points(self.now.space, self.now.trainer, self.now.target)

    def _promise(self, values: Mapping[str, Value], epochs: float) -> Proposal | None:
        """A float parent that could be trained, with what its children promise; None: it has been begun."""
        now = self.now
        if now.plan.searches:  # a budget that is one network is used to its last batch
            epochs = whole(epochs, epochs)
        candidate = float_candidate(values, epochs=round(epochs, 2), seed=now.settings.seed)
        key = float_key(candidate)
        if key in now.begun_parents:
            return None
        options = _bits_around(now.pool(candidate, values, now.long_epochs), values)
        if not options:
            return None
        error = log_error(
            *now.known.curve.error(candidate.architecture, options[0].price.macs, epochs * now.known.images)
        )
        worth = now.gain.of(options, key, error)
        place = worth.safe()
        gain = float(worth.gains[place]) if worth.chances[place] > REACHES else 0.0
        chosen = {**values, **options[place].values}
        return Proposal("parent", chosen, candidate, 0, "starting point", gain, 1 - 2 ** float(worth.means[place]))

    def _share_after(self, candidate: Candidate) -> float | None:
        """What part of the cost of a new parent and two tunings a tuning alone is; None: they do not end in time."""
        budget = self.now.budget
        macs = self.now.trainer.price(candidate).macs
        cost = budget.cost(candidate, macs, parent=True)
        tune = budget.fixed() + self.now.long_epochs * budget.epoch(macs, parent=False)
        return None if cost + tune > budget.left() else tune / (cost + 2 * tune)

    def _neighbours(self) -> list[dict[str, Value]]:
        """Architectures one or two steps away from the best network's, with the setting that was best on it."""
        now = self.now
        leader = now.known.judge.best()
        if leader is None:
            return []
        values = now.space.complete(leader.params)
        names = [name for name in now.space.architecture if name in values]
        found = []
        for _ in range(NEIGHBOURS):
            changed = dict(values)
            for name in now.rng.sample(names, k=min(len(names), now.rng.choice((1, 1, 2)))):
                steps = now.space.dimensions[name].beside(changed[name])
                if steps:
                    changed[name] = now.rng.choice(steps)
            found.append(now.space.complete(changed))
        return found


def starting_points(space: Space, trainer: Trainer, target: float | None) -> list[dict[str, Value]]:
    """The known good candidates; where a score must not be passed, each as wide as that score allows."""
    points = seeds(space)
    return points if target is None else [_widest(point, space, trainer, target) for point in points]


def _widest(values: dict[str, Value], space: Space, trainer: Trainer, target: float) -> dict[str, Value]:
    """`values` with the largest width of the grid whose price stays below `target`; unchanged if none does."""
    if "width" not in values:
        return values
    widths = space.dimensions["width"].grid()
    low, high = -1, len(widths)  # prices rise with the width: halve the range
    while high - low > 1:
        middle = (low + high) // 2
        changed = {**values, "width": widths[middle]}
        try:
            setting = Pool(space, trainer, float_candidate(changed, epochs=1.0), changed, 1.0).setting(changed)
        except ContestError:
            setting = None
        if setting is not None and setting.price.total * FILE_OVERHEAD < target:
            low = middle
        else:
            high = middle
    return {**values, "width": widths[low]} if low >= 0 else values


def _bits_around(pool: Pool, values: Mapping[str, Value]) -> Sequence[Setting]:
    """A parent's own setting and those that differ by one step in bits or zeros."""
    own = pool.setting(values)
    if own is None:
        return []
    names = ("weight_bits", "activation_bits", "sparsity")
    return [own, *(s for s in pool.around([own]) if any(own.values.get(n) != s.values.get(n) for n in names))]
