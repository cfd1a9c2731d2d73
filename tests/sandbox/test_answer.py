"""The answer of a child is believed only if it is exactly an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from contest.errors import RefusedError
from scoring.costs import Costs, Examination, Number, Operation, ParentCosts
from scoring.sandbox import result_file

IMAGES, CLASSES = 6, 10
FACTS = {"seed": "3"}
HELLO = result_file.frame(b"H", b'{"level": "limits"}')


def examination() -> Examination:
    rows = (Operation("conv", "conv", macs=100, weights=9, nonzeros=5, weight_bits=3, activation_bits=4),)
    costs = Costs(rows, (Number("step", "conv", 1, 32),), ("Foo",), ("why not",), ParentCosts(20.0, 200.0), ("a note",))
    logits = np.random.default_rng(0).standard_normal((IMAGES, CLASSES)).astype(np.float32)
    return Examination(costs, {"p_u": 0.5}, (3, 8, 8), logits, logits.argmax(1).astype(np.int64), True, FACTS)


def test_what_is_packed_comes_back() -> None:
    given = examination()
    hello, found = result_file.unpack(HELLO + result_file.pack(given), IMAGES)
    assert hello.level == "limits" and isinstance(found, Examination)
    assert (found.costs, found.claims, found.image_shape) == (given.costs, given.claims, given.image_shape)
    assert found.provenance == FACTS
    assert found.logits is not None and given.logits is not None and found.repeatable is True
    assert np.array_equal(found.logits, given.logits) and np.array_equal(found.reordered, given.reordered)


def test_costs_alone() -> None:
    given = Examination(examination().costs)
    _, found = result_file.unpack(HELLO + result_file.pack(given), 0)
    assert found == given


def test_nothing_after_hello() -> None:
    assert result_file.unpack(HELLO, 3)[1] is None


def test_errors_come_back_as_plain_short_text() -> None:
    text = "bad\n\x1b[31m\u202e" + "x" * 9_000
    payload = json.dumps({"kind": "refused", "message": text}).encode()
    _, found = result_file.unpack(HELLO + result_file.frame(b"E", payload), 0)
    assert isinstance(found, result_file.Failure) and found.kind == "refused"
    assert found.message.isascii() and found.message.isprintable() and len(found.message) <= 2_000


def altered(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The honest answer with its header changed."""
    data = result_file.pack(examination())
    size = int.from_bytes(data[9:17], "little")
    header = json.loads(data[17 : 17 + size])
    change(header)
    return HELLO + result_file.frame(b"R", json.dumps(header).encode()) + data[17 + size :]


def first(header: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = header["costs"]["operations"][0]
    return row


LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "negative macs": lambda h: first(h).update(macs=-1),
    "macs beyond belief": lambda h: first(h).update(macs=10**30),
    "macs as text": lambda h: first(h).update(macs="1"),
    "macs as truth value": lambda h: first(h).update(macs=True),
    "more nonzeros than weights": lambda h: first(h).update(nonzeros=10),
    "nine hundred bits": lambda h: first(h).update(weight_bits=900),
    "name of a megabyte": lambda h: first(h).update(name="x" * 10**6),
    "no operations": lambda h: h["costs"].pop("operations"),
    "operations that are text": lambda h: h["costs"].update(operations="conv"),
    "50,001 operations": lambda h: h["costs"].update(operations=h["costs"]["operations"] * 50_001),
    "message of a megabyte": lambda h: h["costs"].update(problems=["x" * 10**6]),
    "NaN in the parent": lambda h: h["costs"]["parent"].update(weights=float("nan")),
    "infinite claim": lambda h: h["claims"].update(p_u=float("inf")),
    "claim that is text": lambda h: h["claims"].update(p_u="much"),
    "shape of no image": lambda h: h.update(image_shape=[3, 0, 8]),
    "another number of classes": lambda h: h.update(classes=9),
    "one class": lambda h: h.update(classes=1),
    "no classes": lambda h: h.update(classes=None),
    "no provenance": lambda h: h.pop("provenance"),
    "provenance that is a number": lambda h: h["provenance"].update(seed=3),
    "provenance of a megabyte": lambda h: h["provenance"].update(seed="x" * 10**6),
    "provenance of many": lambda h: h.update(provenance={str(i): "" for i in range(65)}),
    "another key": lambda h: h.update(accuracy=1.0),
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie(lie: str) -> None:
    with pytest.raises(RefusedError, match="gave an answer that is not one"):
        result_file.unpack(altered(LIES[lie]), IMAGES)


def frames(logits: Any = None, reordered: Any = None) -> bytes:
    good = examination()
    header = result_file.pack(Examination(good.costs, good.claims, good.image_shape))
    size = int.from_bytes(header[9:17], "little")
    content = {**json.loads(header[17 : 17 + size]), "classes": CLASSES, "repeatable": True}
    parts = [HELLO, result_file.frame(b"R", json.dumps(content).encode())]
    parts.append(result_file.frame(b"L", np.asarray(good.logits if logits is None else logits).tobytes()))
    parts.append(result_file.frame(b"P", np.asarray(good.reordered if reordered is None else reordered).tobytes()))
    return b"".join(parts)


def test_arrays_that_lie() -> None:
    good = examination()
    assert good.logits is not None
    assert isinstance(result_file.unpack(frames(), IMAGES)[1], Examination)
    bad = [
        frames(logits=np.full_like(good.logits, np.nan)),
        frames(logits=good.logits[:-1]),
        frames(logits=good.logits.astype(np.float64)),
        frames(reordered=np.full(IMAGES, 10)),
        frames(reordered=np.full(IMAGES, -1)),
        frames(reordered=np.zeros(IMAGES - 1, np.int64)),
    ]
    for data in bad:
        with pytest.raises(RefusedError):
            result_file.unpack(data, IMAGES)
    with pytest.raises(RefusedError, match="unknown kind or impossible size"):
        result_file.unpack(frames(), 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        HELLO[:-1],
        HELLO * 2,
        HELLO * 10,
        result_file.frame(b"R", b"{}"),
        result_file.frame(b"H", b"{}"),
        HELLO + result_file.frame(b"E", b"[" * 10_000),
        HELLO + result_file.frame(b"E", b'{"kind": "fine", "message": "x"}'),
        HELLO + result_file.frame(b"Z", b""),
        HELLO + b"CONTEST1R" + (2**63).to_bytes(8, "little"),
        result_file.frame(b"H", b'{"level": "trusted"}'),
        HELLO + result_file.frame(b"E", b" " * 30_000),
        HELLO + result_file.frame(b"R", b"[" * 100_000),
    ],
)
def test_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(RefusedError, match="gave an answer that is not one"):
        result_file.unpack(data, 0)
