"""What comes back through the pipe: frames of known kinds and sizes, checked before anything believes them.

A frame is MAGIC, one byte of kind, the length as u64, then that many bytes. H: the level, sent before the child
looks at the submission. Then either E (an error) or R (costs as JSON) and, with images, L (float32 logits [N, classes])
and P (int64 predictions [N] of the other order); or O alone, where the gate only looked at the file and let it pass.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from contest.errors import RefusedError
from contest.untrusted.description import shown
from scoring.costs import MAX_CLASSES, MAX_FACTS, MAX_TEXT, Costs, Examination, check_logits
from scoring.sandbox.limits import LEVELS

MAGIC = b"CONTEST1"
_HEAD = struct.Struct("<8scQ")
MAX_HELLO = 200
MAX_ERROR = 20_000
MAX_COSTS = 32_000_000
MAX_ROWS = 50_000
MAX_MESSAGE = 2_000


class _Costs(BaseModel):
    """The JSON of frame R. Strict: no conversions, no other keys."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    costs: Costs
    claims: dict[str, float]
    image_shape: tuple[int, int, int]
    repeatable: bool | None
    classes: int | None
    provenance: dict[str, str]


@dataclass(frozen=True)
class Hello:
    """Sent by our own code alone: level of isolation, and whether the filter of system calls is there."""

    level: str


@dataclass(frozen=True)
class Passed:
    """The gate looked at the file and found nothing to refuse."""


@dataclass(frozen=True)
class Failure:
    """Why the child refused. kind: refused, memory."""

    kind: str
    message: str


def frame(kind: bytes, payload: bytes | memoryview) -> bytes:
    """The bytes of one frame."""
    return _HEAD.pack(MAGIC, kind, len(payload)) + bytes(payload)


def pack(examination: Examination) -> bytes:
    """All frames of an examination."""
    logits, reordered = examination.logits, examination.reordered
    header = {
        "costs": examination.costs.to_json(),
        "claims": dict(examination.claims),
        "image_shape": examination.image_shape,
        "repeatable": examination.repeatable,
        "classes": None if logits is None else logits.shape[1],
        "provenance": dict(examination.provenance),
    }
    parts = [frame(b"R", json.dumps(header).encode())]
    if logits is not None and reordered is not None:
        parts.append(frame(b"L", np.ascontiguousarray(logits, "<f4").tobytes()))
        parts.append(frame(b"P", np.ascontiguousarray(reordered, "<i8").tobytes()))
    return b"".join(parts)


def unpack(data: bytes, images: int) -> tuple[Hello, Examination | Failure | Passed | None]:
    """Read an answer about `images` images; the second part is None where the child died before it answered.

    Raises RefusedError for anything that is not exactly an answer.
    """
    frames = _frames(
        data,
        {b"H": MAX_HELLO, b"E": MAX_ERROR, b"R": MAX_COSTS, b"L": images * MAX_CLASSES * 4, b"P": images * 8, b"O": 0},
    )
    kinds = [kind for kind, _ in frames]
    if not frames or kinds[0] != b"H":
        raise _garbage("it does not begin with its level")
    hello = _hello(frames[0][1])
    if kinds == [b"H"]:
        return hello, None
    if kinds == [b"H", b"E"]:
        return hello, _failure(frames[1][1])
    if kinds == [b"H", b"O"]:
        return hello, Passed()
    if kinds != ([b"H", b"R", b"L", b"P"] if images else [b"H", b"R"]):
        raise _garbage("its parts are not in order")
    return hello, _examination([payload for _, payload in frames[1:]], images)


def _frames(data: bytes, limits: dict[bytes, int]) -> list[tuple[bytes, memoryview]]:
    view, place = memoryview(data), 0
    found: list[tuple[bytes, memoryview]] = []
    while place < len(data):
        if len(data) - place < _HEAD.size or len(found) >= 4:
            raise _garbage("it is cut off or too long")
        magic, kind, size = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        if magic != MAGIC or size > limits.get(kind, -1) or size > len(data) - place:
            raise _garbage("it has a part of unknown kind or impossible size")
        found.append((kind, view[place : place + size]))
        place += size
    return found


def _hello(payload: memoryview) -> Hello:
    content = _json(payload)
    if not isinstance(content, dict) or content.get("level") not in LEVELS:
        raise _garbage("its level is unknown")
    return Hello(content["level"])


def _failure(payload: memoryview) -> Failure:
    content = _json(payload)
    if (
        not isinstance(content, dict)
        or content.get("kind") not in ("refused", "memory")
        or not isinstance(content.get("message"), str)
    ):
        raise _garbage("its error is not one")
    return Failure(content["kind"], shown(" ".join(content["message"].split()), MAX_MESSAGE))


def _json(payload: memoryview) -> Any:
    try:
        return json.loads(bytes(payload))
    except (ValueError, RecursionError) as error:
        raise _garbage("it is not JSON") from error


_ANSWER = TypeAdapter(_Costs)


def _examination(parts: list[memoryview], images: int) -> Examination:
    try:
        header = _ANSWER.validate_json(bytes(parts[0]))
    except (ValidationError, RecursionError) as error:
        raise _garbage("its costs are not a table of costs") from error
    _check_costs(header.costs)
    if min(header.image_shape) < 1 or any(len(k) > MAX_MESSAGE for k in header.claims) or len(header.claims) > 100:
        raise _garbage("its claims or its image shape are impossible")
    if len(header.provenance) > MAX_FACTS or any(max(len(k), len(v)) > MAX_TEXT for k, v in header.provenance.items()):
        raise _garbage("its provenance is too long")
    if not images:
        return Examination(header.costs, header.claims, header.image_shape, provenance=header.provenance)
    classes = header.classes or 0
    if not 2 <= classes <= MAX_CLASSES or len(parts[1]) != images * classes * 4 or len(parts[2]) != images * 8:
        raise _garbage(f"its logits are not {images} x {classes} numbers")
    logits = np.frombuffer(parts[1], "<f4").reshape(images, classes)
    reordered = np.frombuffer(parts[2], "<i8")
    check_logits(logits, reordered, images)
    if reordered.min() < 0 or reordered.max() >= classes:
        raise _garbage("its predictions are not classes")
    return Examination(
        header.costs,
        header.claims,
        header.image_shape,
        logits.astype(np.float32),
        reordered.astype(np.int64),
        header.repeatable,
        header.provenance,
    )


def _check_costs(costs: Costs) -> None:
    """Numbers not negative and not absurd, texts short, rows few."""
    if max(len(costs.operations), len(costs.numbers), len(costs.unknown_operations), len(costs.problems)) > MAX_ROWS:
        raise _garbage(f"its costs have more than {MAX_ROWS:,} rows")
    for row in (*costs.operations, *costs.numbers, *((costs.parent,) if costs.parent else ())):
        for value in vars(row).values():
            if isinstance(value, str) and len(value) > MAX_MESSAGE:
                raise _garbage("its costs have a name that is too long")
            if isinstance(value, int | float) and not 0 <= value <= 1e18:
                raise _garbage(f"its costs have the number {value:g}")
    for operation in costs.operations:
        if operation.nonzeros > operation.weights or max(operation.weight_bits, operation.activation_bits) > 64:
            raise _garbage("its costs contradict themselves")
    for text in (*costs.unknown_operations, *costs.problems, *costs.notes):
        if len(text) > MAX_MESSAGE:
            raise _garbage("its costs have a message that is too long")


def _garbage(reason: str) -> RefusedError:
    return RefusedError(f"the isolated process gave an answer that is not one ({reason}); the file is not accepted")
