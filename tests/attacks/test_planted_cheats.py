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
from tests.attacks import (  # noqa: F401  (they plant)
    planted_codes,
    planted_disguised,
    planted_numbers,
    planted_pieces,
    planted_stand_ins,
    planted_sums,
    planted_work,
)
from tests.attacks.planted import FIRST, PLANTED, f32, network
from tests.attacks.scored import images, score

LEAST = 0.95
SAME_FUNCTION = 2e-2
"""Largest difference of logits to the twin's, relative to the largest: the cheats by small numbers are not exact."""
QONNX = (planted_codes.__name__, planted_sums.__name__)
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
    "bands_of_rows_with_their_own_shifts",
    "bands_of_rows_with_their_own_multipliers",
    "bands_of_rows_as_channels_and_back",
    *(name for name, cheat in PLANTED.items() if cheat.cheat.__module__ in QONNX),
}
"""Their twin is one of the same size, or of what is run; QONNX and doubles do not run in ONNX Runtime."""


@cache
def _twin(make: object, directory: str) -> Report:
    assert callable(make)
    return _scored(make(), Path(directory))


def _scored(model: onnx.ModelProto, directory: Path) -> Report:
    return score(model, directory, images=images(shape=_shape(model)))


def _shape(model: onnx.ModelProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:])


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("twins"))


@pytest.mark.parametrize("name", PLANTED)
def test_costs_what_its_twin_costs(name: str, folder: str, tmp_path: Path) -> None:
    cheat = PLANTED[name]
    report = _scored(cheat.cheat(), tmp_path)
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
    pixels = images(4, _shape(model)).pixels.float().numpy() / 255
    parts = [session.run(None, {"image": pixels[i : i + 1]})[0] for i in range(4)]
    return np.concatenate(parts)


def test_there_are_enough_of_them() -> None:
    assert len(PLANTED) >= 91
    assert sum(cheat.twin is not None for cheat in PLANTED.values()) >= 86
    assert len({cheat.family for cheat in PLANTED.values()}) >= 24


POINTS = [n % 3 for n in range(16)]


@pytest.mark.parametrize("alive", [True, False])
@pytest.mark.parametrize(
    "what", ["quantisers of the channels", "zero points", "slopes of channels", "slopes of places"]
)
def test_honest_vectors_beside_dead_channels(what: str, alive: bool, tmp_path: Path) -> None:
    """Vectors of an axis that is not written in their shape, or of another one, are cut where the channels are."""
    C, N = 16, onnx.helper.make_node
    steps, slopes = np.linspace(0.1, 0.3, C, dtype=np.float32), np.linspace(0.1, 1, C, dtype=np.float32)
    points = np.asarray(POINTS if what == "zero points" else [0] * C, np.uint8)
    quantised = [
        N("QuantizeLinear", ["x", "steps", "points"], ["c"], axis=1),
        N("DequantizeLinear", ["c", "steps", "points"], ["xq"], axis=1),
        N("Conv", ["xq", "w"], ["y"], pads=[1] * 4),
    ]
    sloped = [N("PRelu", ["x", "slopes"], ["sx"]), N("Conv", ["sx", "w"], ["y"], pads=[1] * 4)]
    first = FIRST.copy()
    first[::2] *= alive
    arrays = {"first": first, "w": f32(np.random.default_rng(0).standard_normal((C, C, 3, 3)))}
    arrays["w"][:, ::2] *= alive
    arrays |= {"steps": steps, "points": points, "slopes": slopes.reshape(1, C, 1, 1)}
    if what == "slopes of places":
        arrays["slopes"] = np.tile(slopes, (C, 1))
    model = network(sloped if "slopes" in what else quantised, arrays, shape=(3, C, C))
    report = _scored(model, tmp_path)
    assert report.file_problems == ()
    assert report.measured["macs"] < 700_000 if not alive else report.measured["macs"] > 700_000
