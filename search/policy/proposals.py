"""What to do next, from what a study knows and what is left of its budget: one proposal at a time.

First the best known network with the budget's own recipe; then settings compared from its float parent by short tunes;
then whatever promises the largest saving per cost: a long tuning of a setting, a parent that goes on, a new parent.
Nothing here trains or writes; the same study, budget and chance give the same proposal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from contest.candidate import Candidate
from contest.errors import ContestError
from contest.networks.options import Value
from search.candidates import float_candidate, seeds, whole
from search.policy.budget import LEAST
from search.policy.situation import (
    FILE_OVERHEAD,
    REACHES,
    FloatParent,
    Pool,
    Setting,
    Situation,
    Worth,
    log_error,
    with_length,
)
from search.space import Space
from search.study.trial import Proposal, Stage, float_key, key_of
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
        if self.now.running_parents:  # another worker trains one: a second has to fit in beside it
            found = [option for option in found if self._share_after(option.candidate) is not None]
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
            r.stage == "parent" and r.rung > parent.record.rung and r.float_key == parent.key
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
            *now.known.curve.error(
                candidate.architecture, options[0].price.macs, epochs * now.known.images, candidate.train.optimiser
            )
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
    """The known good candidates; where a score must not be passed, each as wide as that score allows.

    Which optimiser is ahead depends on the length of the training, so each is there with SGD too.
    """
    points = seeds(space)
    points += [plain for point in points if (plain := space.complete({**point, "optimiser": "sgd"})) not in points]
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


WORTH = 0.015
"""Expected saving (log of the score), or accuracy, below which no long tuning is begun."""
CLOSE = 3
"""Settings from whose neighbourhood the pool is widened."""


def next_proposal(now: Situation) -> Proposal | None:
    """The next piece of work; None: nothing that fits is worth its cost."""
    return Policy(now).next()


@dataclass(frozen=True)
class Policy:
    """Decides in one situation."""

    now: Situation

    def next(self) -> Proposal | None:
        known = self.now.known
        parents = [parent for parent in known.parents.values() if parent.finished]
        if not parents:
            return Parents(self.now).first()
        for parent in parents:
            if not known.children(parent.key):
                child = self._first_child(parent)
                if child is not None:
                    return child
        short = self._short(parents[0]) if self.now.plan.searches else None
        if short is not None:
            return short
        options = [self._long(parent) for parent in parents]
        if self.now.plan.searches:
            options += [Parents(self.now).goes_on(), Parents(self.now).new()]
        found = [option for option in options if option is not None]
        return max(found, key=lambda option: option.gain, default=None) or self._another_seed()

    def _first_child(self, parent: FloatParent) -> Proposal | None:
        """The network that is there early: the largest gain among settings that probably reach the threshold."""
        epochs = self._fitting(self.now.plan.child, parent)
        if epochs is None and not self.now.known.judge.networks:
            epochs = max(self.now.plan.child, LEAST)  # a study ends with a network, whatever its parent took
        options = self.now.pool(parent.candidate, parent.values, epochs or 0.0).grid()
        if epochs is None or not options:
            return None
        worth = self.now.gain.of(options, parent.key, parent.error)
        place = worth.safe()
        return _child(
            "child", options[place], epochs, float(worth.gains[place]), float(worth.means[place]), "first network"
        )

    def _short(self, parent: FloatParent) -> Proposal | None:
        """A setting to compare: the best in one draw of what the model thinks possible."""
        children = self.now.known.children(parent.key)
        if len(children) > self.now.plan.shorts or any(r.stage == "long" for r in children):
            return None
        epochs = self._fitting(self.now.plan.short, parent, leave=self.now.plan.long)
        if epochs is None:
            return None
        options = self._options(parent, epochs)
        if not options:
            return None
        known = self._known_good(parent, epochs)
        if known is not None:
            options = [known]
        worth = self.now.gain.of(options, parent.key, parent.error, draw=known is None)
        place = self._untried(options, worth, epochs)
        if place is None:
            return None
        return _child("child", options[place], epochs, float(worth.gains[place]), float(worth.means[place]), "compared")

    def _known_good(self, parent: FloatParent, epochs: float) -> Setting | None:
        """The setting that is known to be good on a given parent, while nobody has begun it."""
        own = self.now.pool(parent.candidate, parent.values, epochs).setting(parent.values)
        limit = self.now.known.judge.limit()
        if not parent.candidate.start or own is None or (limit and own.price.total * FILE_OVERHEAD >= limit):
            return None
        return None if key_of(with_length(own, epochs).candidate) in self.now.begun else own

    def _long(self, parent: FloatParent) -> Proposal | None:
        """The setting that is worth most, tuned until it has converged, or for all that is left."""
        epochs = self._fitting(max(self.now.plan.long, LEAST), parent)
        if epochs is None:
            return None
        options = self._options(parent, epochs)
        if not options:
            return None
        worth = self.now.gain.of(options, parent.key, parent.error)
        place = self._untried(options, worth, epochs)
        if place is None:
            return None
        gain, hopeless = float(worth.gains[place]), worth.chances[place] < REACHES
        if self.now.known.judge.networks and (gain < WORTH or hopeless):
            return None
        return _child("long", options[place], epochs, gain, float(worth.means[place]), "worth most")

    def _options(self, parent: FloatParent, epochs: float) -> list[Setting]:
        """The grid of a parent's settings and what lies around the best of them and of those tried."""
        pool = self.now.pool(parent.candidate, parent.values, epochs)
        grid = pool.grid()
        if not grid:
            return []
        worth = self.now.gain.of(grid, parent.key, parent.error)
        near = [grid[place] for place in np.argsort(-worth.gains)[:CLOSE]]
        known = self.now.known
        tried = known.judge.ranked([r for r in known.children(parent.key) if r.is_network])
        centres = [pool.setting(self.now.space.complete(r.params)) for r in tried[:CLOSE]]
        return [*grid, *pool.around([*near, *(c for c in centres if c is not None)])]

    def _untried(self, options: Sequence[Setting], worth: Worth, epochs: float) -> int | None:
        """The best of those that nobody has begun with that length; None: all have been, or cost too much."""
        limit = self.now.known.judge.limit()
        for place in worth.order():
            setting = options[place]
            if limit is not None and setting.price.total * FILE_OVERHEAD >= limit:
                continue
            if key_of(with_length(setting, epochs).candidate) not in self.now.begun:
                return place
        return None

    def _another_seed(self) -> Proposal | None:
        """Another seed of the best network, where several were asked for."""
        now = self.now
        leader = now.known.judge.confirmed()
        if now.settings.seeds < 2 or leader is None or leader.result is None:
            return None
        for offset in range(1, now.settings.seeds):
            candidate = replace(leader.candidate, tune_seed=offset)
            cost = now.budget.cost(candidate, leader.result.price.macs, parent=False)
            if key_of(candidate) not in now.begun and cost <= now.budget.left():
                return Proposal("long", now.space.complete(leader.params), candidate, 0, "another seed")
        return None

    def _fitting(self, epochs: float, parent: FloatParent, *, leave: float = 0.0) -> float | None:
        """Epochs of a tuning that ends in time: as planned, fewer, or all that is left; None: too few."""
        budget = self.now.budget
        affordable = budget.epochs_for(budget.left(), parent.macs, parent=False) - leave
        if affordable < max(LEAST, 0.4 * epochs):
            return None
        if affordable < 1.6 * epochs and not leave:
            epochs = affordable
        epochs = min(epochs, affordable)
        return max(min(whole(epochs, epochs), affordable), LEAST)


def _child(stage: Stage, setting: Setting, epochs: float, gain: float, mean: float, why: str) -> Proposal:
    candidate = with_length(setting, epochs).candidate
    return Proposal(stage, setting.values, candidate, 0, why, gain, 1 - 2**mean)
