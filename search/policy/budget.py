"""What is left of a study's budget, and what a training takes from it: images, or seconds of this machine."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from contest.candidate import Candidate
from contest.errors import UsageError
from search.study.trial import TrialPrice, TrialRecord
from search.trainers.protocol import Speed

FIRST_SHARE = 0.15
"""Of the time that is left, what a first float training leaves for the network that is made from it."""
LATE = 1.5
"""A float training that takes so many times what it promised is shortened."""
FIXED_SHARE = 0.3
"""Of the time of a step, what does not shrink with the network's operations."""


def parse_duration(text: str) -> float:
    """`2h`, `90m`, `1h30m`, `45s` in seconds. Raises UsageError for anything else and for nothing."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    if not found or not any(found.groups()):
        raise UsageError(f"--budget {text}: write a time such as 2h, 90m, 1h30m or 45s")
    hours, minutes, seconds = (float(group or 0) for group in found.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise UsageError(f"--budget {text}: is no time at all; write at least 5s")
    return total


class Budget:
    """The account of a study. Without a speed its unit is a training image, with one a second.

    Args:
        images: of an epoch.
        total: images that may be trained in all; in seconds mode ignored.
        ends_at: Unix time of the end; None: images count.
        speed: needed with `ends_at`.
    """

    def __init__(
        self,
        images: int,
        records: Sequence[TrialRecord],
        *,
        total: float = float("inf"),
        ends_at: float | None = None,
        speed: Speed | None = None,
    ) -> None:
        self.images, self.total, self.ends_at = images, total, ends_at
        self._speed = None if speed is None or ends_at is None else corrected(speed, records)
        self._none = not any(r.is_network for r in records)
        self._spent = float(sum(r.result.images for r in records if r.result))
        running = [r for r in records if r.state == "RUNNING" and r.result is None]
        self._promised = sum(
            self.cost(r.candidate, r.price.macs if r.price else 1, parent=r.stage == "parent") for r in running
        )

    @property
    def timed(self) -> bool:
        return self._speed is not None

    def left(self) -> float:
        """Images or seconds that may still be spent by whoever asks now."""
        if self.ends_at is not None:
            return self.ends_at - time.time()
        return self.total - self._spent - self._promised

    def epoch(self, macs: int, *, parent: bool) -> float:
        """What an epoch costs, float or quantised."""
        if self._speed is None:
            return float(self.images)
        speed = self._speed.float_images_per_s if parent else self._speed.tuned_images_per_s
        size = FIXED_SHARE + (1 - FIXED_SHARE) * macs / max(self._speed.macs, 1)
        return (self.images / speed + self._speed.validation_s) * size

    def fixed(self) -> float:
        """What any training costs besides its epochs."""
        return self._speed.start_s if self._speed else 0.0

    def cost(self, candidate: Candidate, macs: int, *, parent: bool) -> float:
        """What the float training of a parent, or the tuning of a child, costs."""
        if parent:
            return self.fixed() + candidate.train.epochs * self.epoch(macs, parent=True)
        rounds = 2 if candidate.structured else 1
        return self.fixed() + rounds * candidate.tune.epochs * self.epoch(macs, parent=False)

    def deadline(self, candidate: Candidate, stage: str, price: TrialPrice | None) -> float | None:
        """When the last step of a training that begins now should be made (Unix time); None where images count.

        A float training leaves time for a first network, and does not take much more than it promised.
        """
        if self.ends_at is None:
            return None
        now, end = time.time(), self.ends_at - self.fixed()
        if stage != "parent":
            return end
        if self._none:
            end -= self.fixed() + FIRST_SHARE * max(end - now, 0.0)
        return min(end, now + LATE * self.cost(candidate, price.macs if price else 1, parent=True))

    def epochs_for(self, amount: float, macs: int, *, parent: bool) -> float:
        """How many epochs `amount` buys, a training's fixed costs taken off."""
        return max(0.0, amount - self.fixed()) / self.epoch(macs, parent=parent)


def corrected(speed: Speed, records: Sequence[TrialRecord]) -> Speed:
    """The speed by what the study's own trainings took: the machine may be busier now than when it was timed."""
    return Speed(
        speed.macs,
        speed.float_images_per_s / _slower(speed, records, parent=True),
        speed.tuned_images_per_s / _slower(speed, records, parent=False),
        speed.validation_s * _slower(speed, records, parent=True),
        speed.start_s,
        speed.float32_s,
    )


def _slower(speed: Speed, records: Sequence[TrialRecord], *, parent: bool) -> float:
    """By what factor the last trainings were slower than timed."""
    rate = speed.float_images_per_s if parent else speed.tuned_images_per_s
    taken = expected = 0.0
    done = [r for r in records if r.result and r.result.images and (r.stage == "parent") == parent]
    for record in done[-4:]:
        assert record.result is not None
        size = FIXED_SHARE + (1 - FIXED_SHARE) * record.result.price.macs / max(speed.macs, 1)
        taken += max(record.result.seconds - speed.start_s, 0.05)
        expected += record.result.images / rate * size
    return min(max(taken / expected, 0.2), 20.0) if expected else 1.0
