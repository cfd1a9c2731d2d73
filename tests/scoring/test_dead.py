"""Channels that are zero but present: credited only where removing them changes nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoring.analysis.cost_model import analyse
from scoring.analysis.dead_channels import without_dead_channels
from scoring.examine import examine
from scoring.readers.read import subject_of_module
from tests.scoring.helpers import Network, subject


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.Conv2d(6, 5, 1),
        nn.Flatten(),
        nn.Linear(180, 4),
    ).eval()


def kill(conv: nn.Module, norm: nn.Module | None, channels: slice) -> None:
    with torch.no_grad():
        conv.weight[channels] = 0
        if norm is not None:
            norm.weight[channels] = 0
            norm.bias[channels] = 0


def test_channel_goes_through_batch_norm_and_depthwise_layer() -> None:
    net = chain()
    kill(net[0], net[1], slice(0, 2))
    with torch.no_grad():
        net[3].bias[:2] = 0
    whole = subject(net)
    graph, notes = without_dead_channels(whole.graph)
    before, after = analyse(whole.graph), analyse(graph)
    # 2 of 6 channels: 27 weights of the first layer, 9 of the depthwise and 5 of the pointwise for each.
    assert before.weights - after.weights == 2 * (27 + 9 + 5)
    assert before.macs - after.macs == 2 * (27 * 64 + 9 * 36 + 5 * 36)
    assert before.parameters - after.parameters == 2 * (27 + 9 + 5) + 2 * 2 + 2
    assert "4 channels are masked to zero" in notes[0]
    assert examine(whole).costs.macs == after.macs


def test_half_loses_the_channels_that_float_loses() -> None:
    net = chain()
    kill(net[0], net[1], slice(0, 2))
    with torch.no_grad():
        net[3].bias[:2] = 0
    whole = examine(subject(net)).costs
    half = examine(subject(net.half())).costs
    assert half.macs == whole.macs < analyse(subject(chain()).graph).macs
    assert [op.nonzeros for op in half.operations] == [op.nonzeros for op in whole.operations]


def test_half_without_half_arithmetic_is_asked_in_float(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module's own convolutions take 40 times as long in half; the second opinion comes from its copy in float."""
    monkeypatch.setattr("scoring.readers.read.is_native", lambda dtype: False)
    net = chain()
    images = torch.rand(5, 3, 8, 8)
    expected = net(images)
    answer = subject_of_module(net.half(), (3, 8, 8)).run(images)
    assert answer.dtype == torch.float32
    assert torch.allclose(answer, expected, atol=1e-2)
    assert next(net.parameters()).dtype == torch.float16  # the author's module stays as it is


def test_channel_that_nothing_reads_goes_too() -> None:
    net = chain()
    with torch.no_grad():
        net[6].weight.view(4, 5, 36)[:, 1] = 0
    graph, _ = without_dead_channels(subject(net).graph)
    assert analyse(graph).weights == analyse(subject(net).graph).weights - (6 + 4 * 36)


def test_channel_with_a_shift_stays() -> None:
    net = chain()
    kill(net[0], net[1], slice(0, 2))
    with torch.no_grad():
        net[1].bias[:2] = 0.5
    graph, notes = without_dead_channels(subject(net).graph)
    assert graph is not None
    assert notes == ()


def residual() -> Network:
    def run(s: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(s.stem(x))
        return s.fc(F.relu(x + s.branch(x)).mean((2, 3)))

    torch.manual_seed(0)
    convs = {"stem": nn.Conv2d(3, 6, 3, padding=1), "branch": nn.Conv2d(6, 6, 3, padding=1)}
    return Network(run, **convs, fc=nn.Linear(6, 4)).eval()


def test_one_branch_of_a_residual_add_is_not_enough() -> None:
    net = residual()
    kill(net.branch, None, slice(0, 1))
    with torch.no_grad():
        net.branch.bias[0] = 0
    assert without_dead_channels(subject(net).graph)[1] == ()


def test_both_branches_of_a_residual_add() -> None:
    net = residual()
    for layer in (net.stem, net.branch):
        kill(layer, None, slice(0, 1))
        with torch.no_grad():
            layer.bias[0] = 0
    before = analyse(subject(net).graph)
    after = analyse(without_dead_channels(subject(net).graph)[0])
    assert before.weights - after.weights == 27 + (6 * 6 - 5 * 5) * 9 + 4
    assert before.macs - after.macs == (27 + (6 * 6 - 5 * 5) * 9) * 64 + 4


def test_dense_networks_are_left_alone() -> None:
    graph = subject(chain()).graph
    assert without_dead_channels(graph) == (graph, ())
