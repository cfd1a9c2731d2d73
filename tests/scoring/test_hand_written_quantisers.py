"""Quantisers as students write them: followed where their code clamps, declared and verified where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contest.errors import RefusedError, UsageError
from scoring.convert import convert_module
from scoring.readers.quantiser_patterns import coded_weight
from scoring.report import Report
from scoring.score import score_file, score_module
from tests.scoring import students


def scored(how: str, **options: dict[str, int]) -> Report:
    torch.manual_seed(0)
    model = students.train(students.HandWritten(how), 20)
    report = score_module(model, (1, 8, 8), images=students.digits(), rule="digits", **options)  # type: ignore[arg-type]
    assert report.accuracy is not None
    assert abs(report.accuracy.correct - students.correct(model)) <= 1
    assert not report.unknown_operations
    return report


def bits(report: Report) -> dict[str, tuple[int, int]]:
    return {row["name"]: (row["weight_bits"], row["activation_bits"]) for row in report.layers if row["macs"]}


@pytest.mark.parametrize(("how", "first", "second"), [("lsq", (4, 8), (4, 3)), ("rounding by channel", (4, 8), (4, 4))])
def test_what_the_code_clamps_has_its_bits(how: str, first: tuple[int, int], second: tuple[int, int]) -> None:
    found = bits(scored(how))
    assert (found["conv1"], found["conv2"]) == (first, second)


def test_dorefa_has_activations_of_four_bits_and_weights_on_a_grid_without_zero() -> None:
    """Its weights are odd multiples of 1/15, -15 to 15: 30 values that are no code 0, so five bits and not four."""
    report = scored("dorefa")
    assert bits(report)["conv2"] == (32, 4)
    assert any("--declare conv1=5,conv2=5" in note for note in report.notes)
    assert bits(scored("dorefa", declared={"*": 5} | {"fc": 8} if False else {"conv1": 5, "conv2": 5}))["conv2"] == (
        5,
        4,
    )


def test_binary_weights_count_one_bit_once_they_are_declared() -> None:
    before = scored("binary")
    assert bits(before)["conv1"] == (32, 8)
    assert any("--declare conv1=1,conv2=1" in note for note in before.notes)
    after = scored("binary", declared={"conv1": 1, "conv2": 1})
    assert bits(after) == bits(before) | {"conv1": (1, 8), "conv2": (1, 32)}
    weights, others = 8 * 9 + 8 * 8 * 9, 320 + 8 + 8 + 10
    saved = weights * 31 - 2 * 32  # one step a layer
    assert after.score.params / before.score.params == pytest.approx(1 - saved / ((weights + others) * 32))


def test_a_declaration_is_verified() -> None:
    with pytest.raises(RefusedError, match="'conv1' is declared to have 8 bits"):
        torch.manual_seed(0)
        score_module(students.trained(), (1, 8, 8), declared={"conv1": 8})
    with pytest.raises(RefusedError, match="'conv1' is declared to have 2 bits"):
        scored("dorefa", declared={"conv1": 2})
    with pytest.raises(UsageError, match="the network has the layers conv1, conv2, fc"):
        scored("binary", declared={"conv9": 1})


def test_what_is_declared_goes_along_into_onnx(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = students.train(students.HandWritten("binary"), 20)
    declared = {"conv1": 1, "conv2": 1}
    convert_module(model, tmp_path / "binary.onnx", (1, 8, 8), declared)
    here = score_module(model, (1, 8, 8), images=students.digits(), rule="digits", declared=declared)
    there = score_file(tmp_path / "binary.onnx", images=students.digits(), rule="digits", trust=True)
    assert there.score == here.score


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(1, 7),
    channels=st.integers(1, 4),
    by_channel=st.booleans(),
    half=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_codes_come_back_from_floats(bits: int, channels: int, by_channel: bool, half: bool, seed: int) -> None:
    """Codes of a random grid, multiplied out, are found again: never more bits than they were made with."""
    generator = torch.Generator().manual_seed(seed)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    codes = torch.randint(low, high + 1, (channels, 40), generator=generator)
    if codes.unique().numel() < 2:
        return
    codes[:, :2] = torch.tensor([low, 1])
    steps = torch.rand(channels, 1, generator=generator) + 0.01
    weight = codes * (steps if by_channel else steps[0])
    found = coded_weight(weight.half() if half else weight, 8)
    if half and bits > 4:
        return  # half holds products of large codes to one part in two thousand only
    assert found is not None and found.bits <= bits
    torch.testing.assert_close(found.codes * found.step.float(), weight, rtol=2e-3 if half else 1e-5, atol=1e-6)


def test_trained_float_weights_are_on_no_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    assert coded_weight(torch.randn(16, 3, 3, 3, generator=generator), 8) is None
