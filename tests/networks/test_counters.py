"""The comparison of MAC counters, on four networks that between them show every kind of difference."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

pytest.importorskip("torchinfo")
pytest.importorskip("thop")
pytest.importorskip("ptflops")


def load() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "counters.py"
    spec = importlib.util.spec_from_file_location("counters", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["counters"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


counters = load()


class Shared(nn.Module):
    """One layer used twice, a linear layer on a map, a convolution without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice, self.fc = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(30, 5)

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.fc(self.twice(self.twice(self.stem(x)))).mean((1, 2))


def test_a_network_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "build", lambda name, size: Shared().eval())
    row = counters.compare("shared", 32)
    # 30x30 positions: stem 27x4, twice 36x4 each; 4x30 rows of 30x5.
    assert row.ours == 900 * 108 + 2 * 900 * 144 + 120 * 150
    assert not row.unexplained and row.counts["fvcore"].macs == row.counts["thop"].macs == row.ours
    assert row.counts["ptflops"].macs - row.ours == 2 * 3600 + 600
    assert row.counts["torchinfo"].reasons == ("bias +7,205", "tokens -17,850")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x1_0"])
def test_torchvision_networks_are_explained(name: str) -> None:
    row = counters.compare(name, 32)
    assert not row.refused and not row.unexplained
    assert row.counts["fvcore"].macs == row.ours


def test_published_macs() -> None:
    """torchvision's documentation of ResNet18_Weights: 1.814 billion multiply-accumulates at 224x224."""
    row = counters.compare("resnet18", 224)
    assert round(row.ours / 1e9, 3) == 1.814


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b_16", "timm/mobilenetv3_small_100", "timm/nf_resnet26"])
def test_functional_layers_and_subclasses_are_explained(name: str) -> None:
    row = counters.compare(name, 32)
    assert not row.unexplained
    assert row.counts["thop"].macs < row.ours and row.counts["fvcore"].macs == row.ours


def test_what_is_not_explained_is_said() -> None:
    row = counters.Row("net", 32, 100, 0, {tool: counters.Count(100, 100) for tool in counters.TOOLS})
    row.counts["thop"] = counters.Count(90, 95, ("subclass -5",))
    assert row.unexplained == ["thop"]
    text = counters.markdown([row, counters.Row("tiny", 32, refused="too small")])
    assert "-10 **UNEXPLAINED**, expected -5" in text and "* tiny at 32: too small" in text
