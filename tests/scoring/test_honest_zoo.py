"""Honest networks of others: every operation between their layers is covered, and their wiring is within the allowance.

The oracle of the multiply-accumulates is PyTorch's own counter. Networks are built without memory or arithmetic.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from contest.networks import parse
from contest.zoo import DIRECTORY
from scoring.analysis.cost_model import analyse
from scoring.analysis.dead_channels import prepared
from scoring.readers.read import read
from scoring.readers.torch_trace import trace
from scoring.report import Report
from scoring.rules import load_rule, price
from scoring.score import architecture_costs
from scoring.verification import dispatched_macs

QUICK = ("resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "squeezenet1_1", "efficientnet_b0", "mnasnet0_5")
SLOW = (
    "alexnet",
    "vgg11",
    "vgg11_bn",
    "vgg16_bn",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "densenet121",
    "densenet161",
    "densenet201",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "mnasnet1_0",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x2_0",
    "squeezenet1_0",
    "googlenet",
    "inception_v3",
    "efficientnet_b1",
    "efficientnet_b3",
    "efficientnet_v2_s",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "regnet_y_1_6gf",
)
TIMM = (
    "resnet10t",
    "resnet26d",
    "resnetv2_50",
    "densenet121",
    "repvgg_a0",
    "repghostnet_050",
    "ghostnet_050",
    "dla34",
    "hardcorenas_a",
    "hrnet_w18_small",
    "res2net50_14w_8s",
    "ese_vovnet19b_dw",
    "mobilenetv2_050",
    "mixnet_s",
    "tinynet_e",
    "fbnetc_100",
    "spnasnet_100",
    "selecsls42b",
    "resnetblur18",
    "cspresnet50",
    "darknet53",
    "vgg11_bn",
    "inception_v4",
    "xception41",
    "lcnet_050",
    "semnasnet_075",
)
MOVED = ("convnext_tiny", "vit_b_32")
"""Normalisations and softmaxes of these are priced since version 2."""


def torchvision_model(name: str) -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    options = {"googlenet": {"aux_logits": False, "init_weights": False}, "inception_v3": {"init_weights": False}}
    device = "cpu" if name.startswith("regnet") else "meta"  # these look at numbers while they are built
    with torch.device(device), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: nn.Module = getattr(models, name)(weights=None, **options.get(name, {}))
    return model.to("meta").eval()


def check_covered(model: nn.Module, size: int) -> None:
    image = torch.empty((1, 3, size, size), device="meta")
    found = analyse(trace(model, image))
    assert found.unknown_operations == ()
    assert [(op.name, op.kind, op.steps) for op in found.operations if op.steps] == []
    assert [number for number in found.numbers if number.name == "wiring"] == []
    assert found.allowances["work"] <= 1
    assert found.allowances["wiring"] < 1
    assert found.macs == dispatched_macs(model, image)


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("*.pt")), ids=lambda path: path.stem)
def test_bundled_entries_keep_their_score_to_the_unit(path: Path) -> None:
    """Their reports were made under version 1 of the rules."""
    report = Report.from_json(json.loads(path.with_suffix(".json").read_text("utf-8")))
    costs = analyse(prepared(read(path).graph)[0])
    assert {name: price(costs, load_rule(name)) for name in report.scores} == dict(report.scores)


@pytest.mark.parametrize("name", QUICK)
def test_all_between_the_layers_is_covered(name: str) -> None:
    check_covered(torchvision_model(name), 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_all_between_the_layers_is_covered_everywhere(name: str) -> None:
    check_covered(torchvision_model(name), 299 if name == "inception_v3" else 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_all_between_the_layers_of_timm_is_covered(name: str) -> None:
    timm = pytest.importorskip("timm")
    if name not in timm.list_models():
        pytest.skip(f"this timm has no {name}")
    model = timm.create_model(name).eval()
    with torch.device("cpu"):
        model = model.to("meta")
    check_covered(model, 128)


@pytest.mark.slow
@pytest.mark.parametrize("name", MOVED)
def test_attention_is_priced_without_being_blocked(name: str) -> None:
    image = torch.empty((1, 3, 224, 224), device="meta")
    model = torchvision_model(name)
    found = analyse(trace(model, image))
    assert found.unknown_operations == ()
    assert {op.kind for op in found.operations if op.steps} <= {"normalise", "softmax", "elementwise", "sum"}
    assert found.macs == dispatched_macs(model, image)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "steps", "products"),
    [("halonet26t", 256, 1_890_304, 0), ("fastvit_t8", 64, 31_430, 3_072)],
)
def test_attention_by_unfolding_and_branches_keep_their_price(name: str, side: int, steps: int, products: int) -> None:
    """Two networks that a rule for sums once moved: what was priced before it, under version 2 of the rules."""
    found = architecture_costs(parse(f"timm/{name}"), image_shape=(3, side, side), normalise=False)
    assert (sum(op.steps for op in found.operations), sum(op.products for op in found.operations)) == (steps, products)
