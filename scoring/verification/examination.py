"""What an examination finds, and the accuracy of predictions. Plain data without torch: the child sends it back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contest.errors import RefusedError
from scoring.costs import Costs

MAX_CLASSES = 10_000
MAX_FACTS = 64
MAX_TEXT = 2_000
"""Entries of the provenance, and characters of one that a report shows."""


@dataclass(frozen=True)
class Examination:
    """Costs, and what the network says about the images (all None without images).

    logits: float32 [N, classes]. reordered: predictions int64 [N] of a run with another batch size and order, back
    in the order of the images. repeatable: whether a second run of some batches gave the same logits bit for bit.
    """

    costs: Costs
    claims: Mapping[str, float] = field(default_factory=dict)
    image_shape: tuple[int, int, int] = (3, 32, 32)
    logits: NDArray[np.float32] | None = None
    reordered: NDArray[np.int64] | None = None
    repeatable: bool | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What the file says of its making, each text cut to MAX_TEXT characters."""

    @property
    def predictions(self) -> NDArray[np.int64] | None:
        """The class of each image: the largest logit, the first of equals."""
        return None if self.logits is None else self.logits.argmax(1).astype(np.int64)

    def write(self, path: Path) -> None:
        """As an .npz file of plain arrays. `read` is the inverse."""
        header: dict[str, Any] = {
            "costs": self.costs.to_json(),
            "claims": dict(self.claims),
            "image_shape": self.image_shape,
            "repeatable": self.repeatable,
            "provenance": dict(self.provenance),
        }
        arrays: dict[str, NDArray[Any]] = {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)}
        if self.logits is not None and self.reordered is not None:
            arrays |= {"logits": self.logits, "reordered": self.reordered}
        with path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    @staticmethod
    def read(path: Path, images: int = 0) -> Examination:
        """Read and check: `images` predictions of finite numbers. Raises RefusedError if anything else is in it."""
        try:
            with np.load(path, allow_pickle=False) as content:
                header = json.loads(content["header"].tobytes())
                logits = content["logits"] if images else None
                reordered = content["reordered"] if images else None
            found = Examination(
                Costs.from_json(header["costs"]),
                header["claims"],
                tuple(header["image_shape"]),
                logits,
                reordered,
                header["repeatable"],
                header["provenance"],
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise RefusedError(f"the examination of the network came back damaged: {error}") from error
        if logits is not None and reordered is not None:
            check_logits(logits, reordered, images)
        return found


def facts(provenance: Mapping[str, str]) -> dict[str, str]:
    """The provenance as a report shows it: long texts are cut, and say so."""
    shown = list(provenance.items())[:MAX_FACTS]
    return {k: v if len(v) <= MAX_TEXT else v[: MAX_TEXT - 3] + "..." for k, v in shown}


def check_logits(logits: NDArray[np.float32], reordered: NDArray[np.int64], images: int) -> None:
    """Raise RefusedError unless there are finite logits and a second prediction for each image."""
    if logits.ndim != 2 or len(logits) != images or reordered.shape != (images,):
        raise RefusedError(f"the network gave {logits.shape} logits for {images} images; it must give [N, classes]")
    if logits.dtype != np.float32 or reordered.dtype != np.int64 or not 2 <= logits.shape[1] <= MAX_CLASSES:
        raise RefusedError(f"the network gave {logits.shape[1]} logits of {logits.dtype} for an image")
    if not np.isfinite(logits).all():
        raise RefusedError("the network gives logits that are NaN or infinite")


LEVEL = 0.95


@dataclass(frozen=True)
class Accuracy:
    """`value` = correct / total, unrounded; low and high: the Wilson 95 % interval; loss in nats, with three digits."""

    value: float
    correct: int
    total: int
    low: float
    high: float
    loss: float | None = None


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Accuracy:
    """Accuracy and mean cross-entropy of logits [N, classes] for labels [N]."""
    correct, total = int((logits.argmax(1) == labels).sum()), len(labels)
    low, high = wilson(correct, total)
    # Three digits: with all of them, logits can be made so that the loss spells out the labels.
    loss = float(f"{cross_entropy(logits, labels):.3g}")
    return Accuracy(correct / total, correct, total, low, high, loss)


def wilson(correct: int, total: int, level: float = LEVEL) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927, JASA 22, p. 209)."""
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"{correct} correct out of {total}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, spread = correct / total, z * z / total
    middle = (p + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(p * (1 - p) / total + spread / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Mean of -log softmax(logits)[label]."""
    x = logits.astype(np.float64)
    x -= x.max(1, keepdims=True)
    chosen = x[np.arange(len(labels)), labels]
    return float((np.log(np.exp(x).sum(1)) - chosen).mean())


def confusion(predictions: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """[classes, classes]: rows are true classes, columns predictions."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (labels, predictions), 1)
    return table


def difference_p_value(correct_a: int, total_a: int, correct_b: int, total_b: int) -> float:
    """Two-sided p-value that two proportions are equal: the pooled two-proportion z-test."""
    pooled = (correct_a + correct_b) / (total_a + total_b)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / total_a + 1 / total_b))
    if spread == 0:
        return 1.0
    z = abs(correct_a / total_a - correct_b / total_b) / spread
    return 2 * (1 - NormalDist().cdf(z))
