"""PyTorch's own quantisation, prepared and converted, eager and FX: scored at its bits, right as often as it is."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx

from scoring.readers.user_module import load_module
from scoring.report import Report
from scoring.score import score_module
from tests.scoring import students

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

MACS = 64 * 8 * 9 + 64 * 8 * 8 * 9 + 320


def scored(model: nn.Module) -> Report:
    report = score_module(model, (1, 8, 8), images=students.digits(), rule="digits")
    assert report.measured["macs"] == MACS and not report.unknown_operations
    assert report.accuracy is not None
    author = copy.deepcopy(model).apply(quantization.disable_observer)  # as the tutorial says to evaluate
    assert abs(report.accuracy.correct - students.correct(author)) <= 2  # a sum's last bit can tip a code over
    return report


@pytest.fixture(scope="module")
def fx() -> nn.Module:
    mapping = quantization.get_default_qat_qconfig_mapping("x86")
    model = quantize_fx.prepare_qat_fx(students.Functional().train(), mapping, (torch.rand(1, 1, 8, 8),))
    return students.train(model, 60)


def bits(report: Report) -> dict[str, tuple[int, int]]:
    return {row["name"]: (row["weight_bits"], row["activation_bits"]) for row in report.layers if row["macs"]}


def test_prepared_for_training_has_its_bits_and_stays_as_it_is() -> None:
    """The default for x86 reduces activations to 7 bits. Observers left on would move the steps with every image."""
    model = students.aware()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = bits(scored(model))
    assert found["conv1"] == found["conv2"] == (8, 7)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_converted_has_eight_bits_from_its_state_dictionary_too(tmp_path: Path) -> None:
    model = quantization.convert(copy.deepcopy(students.aware()))
    report = scored(model)
    assert set(bits(report).values()) == {(8, 8)}
    torch.save({"state_dict": model.state_dict(), "acc": 0.8}, tmp_path / "int8.pth")
    again = scored(load_module("tests.scoring.students:converted", tmp_path / "int8.pth"))
    assert (again.score, again.accuracy) == (report.score, report.accuracy)


def test_fx_prepared_converted_and_as_reference(fx: nn.Module) -> None:
    assert bits(scored(fx))["conv2"] == (8, 7)
    for convert in (
        quantize_fx.convert_fx,
        quantize_fx.convert_to_reference_fx,
        quantize_fx._convert_to_reference_decomposed_fx,
    ):
        found = scored(convert(copy.deepcopy(fx)))
        assert found.measured["q_w"] == 8, convert.__name__
        assert found.measured["q_a"] is not None and found.measured["q_a"] < 9, convert.__name__


def test_observed_but_not_converted_is_said() -> None:
    model = students.Functional().eval()
    mapping = quantization.get_default_qconfig_mapping("x86")
    observed = quantize_fx.prepare_fx(model, mapping, (torch.rand(1, 1, 8, 8),))
    report = scored(observed)
    assert report.measured["q_w"] == 32
    assert any("prepared, and not converted" in note for note in report.notes)


def test_fake_quantisation_by_channel_is_followed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.fc = nn.Linear(32, 10)

        def weight(self, layer: nn.Conv2d) -> torch.Tensor:
            scale = layer.weight.detach().abs().amax((1, 2, 3)) / 7
            return torch.fake_quantize_per_channel_affine(
                layer.weight, scale, torch.zeros(8, dtype=torch.int32), 0, -7, 7
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in (self.conv1, self.conv2):
                x = nn.functional.relu(nn.functional.conv2d(x, self.weight(layer), layer.bias, padding=1))
                x = torch.fake_quantize_per_tensor_affine(x, 0.1, 0, 0, 15)
            return self.fc(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    found = bits(scored(Net().eval()))
    assert (found["conv1"], found["conv2"]) == ((4, 8), (4, 4))
