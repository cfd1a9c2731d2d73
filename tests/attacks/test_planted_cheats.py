"""Each planted cheat costs at least 0.95 of the cheapest ordinary network that computes the same, or is blocked.

No code of the scorer names any of them: the three laws of `docs/scoring.md` have to price what nobody thought of yet.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from scoring.report import Report
from tests.attacks import planted_numbers, planted_stand_ins, planted_work  # noqa: F401  (they plant)
from tests.attacks.planted import PLANTED
from tests.attacks.scored import images, score

LEAST = 0.95
SAME_FUNCTION = 2e-2
"""Largest difference of logits to the twin's, relative to the largest: the cheats by small numbers are not exact."""
OTHER_FUNCTION = {
    "a_table_of_activations",
    "overlapping_windows_of_one_tensor",
    "an_index_of_an_index",
    "a_chain_of_one_bit_scales",
    "a_second_code_book_behind_a_small_one",
    "steps_of_the_input_carry_weights",
    "a_gate_by_the_batch_size",
    "a_gate_by_a_tiny_number",
    "a_crop_by_the_batch_size",
    "a_scale_for_each_piece",
    "an_index_that_repeats_channels",
    "scales_along_the_input_channels",
    "four_channels_in_one_integer",
    "a_layer_in_double_precision",
    "input_scales_on_inputs_of_few_bits",
    "row_scales_of_a_matrix",
    "steps_of_one_bit_quantisers_as_products",
    "distances_to_tables",
}
"""Their twin is one of the same size, or of what is run; QONNX and doubles do not run in ONNX Runtime."""


@cache
def _twin(make: object, directory: str) -> Report:
    assert callable(make)
    return score(make(), Path(directory), images=images())


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("twins"))


@pytest.mark.parametrize("name", PLANTED)
def test_costs_what_its_twin_costs(name: str, folder: str, tmp_path: Path) -> None:
    cheat = PLANTED[name]
    report = score(cheat.cheat(), tmp_path, images=images())
    if cheat.twin is None:
        assert report.status == "flagged" or name == "largest_of_scaled_channels"
        return
    assert report.file_problems == (), "priced, not blocked"
    twin = _twin(cheat.twin, folder)
    for rule in ("lab", "lab-macs"):
        assert report.scores[rule].total >= LEAST * twin.scores[rule].total, (rule, report.numbers)


@pytest.mark.parametrize("name", [n for n, cheat in PLANTED.items() if cheat.twin and n not in OTHER_FUNCTION])
def test_computes_what_its_twin_computes(name: str) -> None:
    cheat = PLANTED[name]
    assert cheat.twin is not None
    found, wanted = _logits(cheat.cheat()), _logits(cheat.twin())
    assert np.abs(found - wanted).max() <= SAME_FUNCTION * np.abs(wanted).max()


def _logits(model: onnx.ModelProto) -> np.ndarray:  # type: ignore[type-arg]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = images(4).pixels.float().numpy() / 255
    parts = [session.run(None, {"image": pixels[i : i + 1]})[0] for i in range(4)]
    return np.concatenate(parts)


def test_there_are_enough_of_them() -> None:
    assert len(PLANTED) >= 61
    assert sum(cheat.twin is not None for cheat in PLANTED.values()) >= 56
    assert len({cheat.family for cheat in PLANTED.values()}) >= 12
