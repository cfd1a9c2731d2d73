"""What to do next, from what a study knows and what is left of its budget: one proposal at a time.

First the best known network with the budget's own recipe; then settings compared from its float parent by short tunes;
then whatever promises the largest saving per cost: a long tuning of a setting, a parent that goes on, a new parent.
Nothing here trains or writes; the same study, budget and chance give the same proposal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from search.policy.account import LEAST
from search.policy.compression import FILE_OVERHEAD, Setting, with_length
from search.policy.knowledge import REACHES, FloatParent, Worth
from search.policy.parents import Parents
from search.policy.situation import Proposal, Situation
from search.space.candidates import whole
from search.study.trial import Stage, key_of

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
