"""MACs of convolutions and linear layers: this project's counter against four others, every difference explained.

    python tests/benchmarks/counters.py [--models resnet18 ...] [--sizes 32 224] [--markdown docs/counters.md]

A counter is right or wrong to the unit, so nothing is rounded. For each of the others `expected` works out, from this
project's table of operations and what that tool is known to leave out or to add, the number that it must show; a number
that is neither ours nor that one is reported as UNEXPLAINED, and the program ends with 1.
"""

from __future__ import annotations

import argparse
import copy
import gc
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from torch import nn

from contest.errors import ContestError

MODELS = (
    *("alexnet", "vgg11_bn", "googlenet", "inception_v3", "resnet18", "resnet50", "resnext50_32x4d"),
    *("densenet121", "squeezenet1_1", "shufflenet_v2_x1_0", "mobilenet_v2", "mobilenet_v3_small", "mnasnet1_0"),
    *("efficientnet_b0", "regnet_y_400mf", "convnext_tiny", "swin_t", "vit_b_16"),
    *("timm/mobilenetv3_small_100", "timm/efficientnet_lite0", "timm/ghostnet_100", "timm/repvgg_a0"),
    *("timm/resnet10t", "timm/seresnext26d_32x4d", "timm/nf_resnet26", "timm/convnext_atto", "timm/poolformer_s12"),
    *("timm/vit_tiny_patch16_224", "timm/mixer_s16_224", "timm/levit_128s", "timm/mobileone_s0"),
    "timm/tf_efficientnetv2_b0",
)
"""torchvision by its own name, timm behind `timm/`."""

CLASSES = 1000
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


@dataclass(frozen=True)
class Layer:
    """One use of a convolution or linear layer. `outputs`: elements of its output."""

    name: str
    linear: bool
    macs: int
    weights: int
    outputs: int
    channels: int
    bias: bool
    module: nn.Module | None
    """Whose `forward` did the work; None: a function was called with the parameter of another kind of module."""


@dataclass(frozen=True)
class Count:
    """What one tool says, what it must say by `expected`, and why this is not ours."""

    macs: int
    expected: int
    reasons: tuple[str, ...] = ()


@dataclass
class Row:
    """One network at one size; `refused` if it does not take images of that size."""

    model: str
    size: int
    ours: int = 0
    products: int = 0
    """MACs of products of two activations (attention), which no row of the comparison contains."""
    counts: dict[str, Count] = field(default_factory=dict)
    refused: str = ""

    @property
    def unexplained(self) -> list[str]:
        return [tool for tool, count in self.counts.items() if count.macs != count.expected]


def layers_of(model: nn.Module, shape: tuple[int, int, int]) -> tuple[list[Layer], int]:
    """This project's count: every convolution and linear layer, and the MACs of products of activations."""
    from scoring.analysis.cost_model import analyse
    from scoring.readers.read import subject_of_module

    rows, products = [], 0
    for operation in analyse(subject_of_module(model, shape).graph).operations:
        if operation.kind == "matmul":
            products += operation.macs
        if operation.kind not in ("conv", "conv_transpose", "linear"):
            continue
        owner = model.get_submodule(operation.name.split(":")[0])
        own = owner if isinstance(owner, LAYERS) else None
        channels = own.weight.shape[0] if own is not None else 1
        weights = own.weight.numel() if own is not None else operation.weights
        rows.append(
            Layer(
                operation.name,
                operation.kind == "linear",
                operation.macs,
                weights,
                operation.outputs,
                channels,
                own is not None and own.bias is not None,
                own,
            )
        )
    return rows, products


# What the others count ------------------------------------------------------------------------------------------------


def fvcore(model: nn.Module, image: torch.Tensor) -> int:
    """Operators of the traced graph. Its "flops" are MACs."""
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    analysis = FlopCountAnalysis(model, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counted = analysis.by_operator()
    return int(sum(counted.get(kind, 0) for kind in ("conv", "linear", "addmm")))


def torchinfo(model: nn.Module, image: torch.Tensor) -> int:
    """Hooks on modules; MACs from the sizes of parameters and outputs."""
    import torchinfo as tool

    found = tool.summary(model, input_data=image, verbose=0, device="cpu").summary_list
    return int(sum(layer.macs for layer in found if isinstance(layer.module, LAYERS)))


def thop(model: nn.Module, image: torch.Tensor) -> int:
    """Hooks on modules whose type is in its list. Its "flops" of a layer are MACs."""
    import thop as tool  # type: ignore[import-untyped]

    _, _, children = tool.profile(model, (image,), verbose=False, ret_layer_info=True)

    def walk(module: nn.Module, info: dict[str, Any]) -> float:
        total = 0.0
        for name, (operations, _, below) in info.items():
            child = module.get_submodule(name)
            total += operations if isinstance(child, LAYERS) else walk(child, below)
        return total

    return int(walk(model, children))


def ptflops(model: nn.Module, image: torch.Tensor) -> int:
    """Hooks on modules whose type is in its list; functional calls and other modules are switched off."""
    from ptflops import get_model_complexity_info  # type: ignore[import-untyped]
    from ptflops.pytorch_ops import MODULES_MAPPING  # type: ignore[import-untyped]

    # With attention in its list, ptflops would not look at the linear layers inside.
    layers = {kind: hook for kind, hook in MODULES_MAPPING.items() if kind in LAYERS}
    with mock.patch.dict(MODULES_MAPPING, layers, clear=True):
        macs, _ = get_model_complexity_info(
            model,
            tuple(image.shape[1:]),
            as_strings=False,
            print_per_layer_stat=False,
            backend="pytorch",
            backend_specific_config={"count_functional": False},
        )
    return int(macs)


TOOLS: dict[str, Callable[[nn.Module, torch.Tensor], int]] = {
    "fvcore": fvcore,
    "torchinfo": torchinfo,
    "thop": thop,
    "ptflops": ptflops,
}


def expected(tool: str, layers: Sequence[Layer]) -> tuple[int, tuple[str, ...]]:
    """The number that `tool` must show for these layers, and the reasons why it is not ours, with their amounts."""
    total = sum(layer.macs for layer in layers)
    if tool == "fvcore":
        return total, ()
    differences = {"functional": 0, "subclass": 0, "bias": 0, "tokens": 0}
    for layer in layers:
        if layer.module is None:
            differences["functional"] -= layer.macs
        elif tool != "torchinfo" and type(layer.module) not in LAYERS:
            differences["subclass"] -= layer.macs
        else:
            positions = layer.outputs // layer.channels
            if layer.linear and tool == "torchinfo":
                differences["tokens"] -= layer.macs - layer.weights
                positions = 1
            if layer.bias and tool != "thop":
                differences["bias"] += layer.channels * positions
    reasons = tuple(f"{reason} {amount:+,}" for reason, amount in differences.items() if amount)
    return total + sum(differences.values()), reasons


# Networks -------------------------------------------------------------------------------------------------------------


def build(name: str, size: int) -> nn.Module:
    """The network for images [3, size, size] without pretrained weights, 1000 classes."""
    if name.startswith("timm/"):
        from contest import networks

        return networks.build(networks.parse(name), (3, size, size), CLASSES).eval()
    import torchvision

    options: dict[str, Any] = {"vit_b_16": {"image_size": size}}.get(name, {})
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False, "aux_logits": False}
    model: nn.Module = getattr(torchvision.models, name)(num_classes=CLASSES, **options)
    return model.eval()


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings of the tools, and attention layer by layer: the fused kernel of evaluation hides its products."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)


def compare(name: str, size: int) -> Row:
    """One network at one size, counted by everybody."""
    row = Row(name, size)
    image = torch.zeros(1, 3, size, size)
    with quiet(), torch.no_grad():
        try:
            model = build(name, size)
            model(image)
        except (RuntimeError, ValueError, AssertionError, ContestError) as error:
            row.refused = " ".join(str(error).split())[:160]
            return row
        layers, row.products = layers_of(model, (3, size, size))
        row.ours = sum(layer.macs for layer in layers)
        for tool, count in TOOLS.items():
            row.counts[tool] = Count(count(copy.deepcopy(model), image), *expected(tool, layers))
    return row


LEGEND = """\
* **bias**: one addition for each output of a layer with a bias is counted as a multiply-accumulate.
* **tokens**: torchinfo multiplies a linear layer's parameters by the batch alone; on a sequence or a map it misses
  all positions but one.
* **functional**: the layer's arithmetic is a function called with a parameter of another module (the projections inside
  `nn.MultiheadAttention`, weights that are standardised or reshaped first); tools that hook modules do not see it.
* **subclass**: thop and ptflops look the exact type up; a subclass of `nn.Conv2d` (timm's "same" padding and
  standardised convolutions) counts as nothing.
"""


def markdown(rows: Sequence[Row]) -> str:
    """The table as a page; generated, so it is not edited by hand."""
    import importlib.metadata

    versions = ", ".join(
        f"{tool} {importlib.metadata.version(tool)}" for tool in (*TOOLS, "torch", "torchvision", "timm")
    )
    counted = [row for row in rows if not row.refused]
    agree = {tool: sum(row.counts[tool].macs == row.ours for row in counted) for tool in TOOLS}
    but_bias = {
        tool: sum(all(reason.startswith("bias") for reason in row.counts[tool].reasons) for row in counted)
        for tool in TOOLS
    }
    lines = [
        "# Multiply-accumulates: five counters",
        "",
        "Generated by `python tests/benchmarks/counters.py --markdown docs/counters.md`; do not edit.",
        "",
        f"MACs of convolutions and linear layers for one image of {len({row.model for row in counted})} networks of "
        f"torchvision and timm ({len(counted)} rows), 1000 classes. {versions}.",
        "",
        f"Equal to ours to the unit, of {len(counted)}: " + ", ".join(f"{tool} {n}" for tool, n in agree.items()) + "; "
        "apart from the addition of biases: " + ", ".join(f"{tool} {n}" for tool, n in but_bias.items()) + ".",
        "",
        "An empty cell is equal; otherwise the cell has the difference, and its reasons with their amounts, which add "
        "up to it exactly." + (" **UNEXPLAINED** cells are bugs." if any(row.unexplained for row in rows) else ""),
        "",
        LEGEND,
        "`products`: multiply-accumulates of two activations (attention), which the score counts and this comparison "
        "leaves out.",
        "",
        "| network | size | ours | products | " + " | ".join(TOOLS) + " |",
        "| --- | ---: | ---: | ---: | " + " | ".join("---" for _ in TOOLS) + " |",
    ]
    for row in counted:
        cells = [_cell(row, tool) for tool in TOOLS]
        lines.append(f"| {row.model} | {row.size} | {row.ours:,} | {row.products:,} | " + " | ".join(cells) + " |")
    refused = [row for row in rows if row.refused]
    if refused:
        lines += ["", "Sizes that a network does not take:", ""]
        lines += [f"* {row.model} at {row.size}: {row.refused}" for row in refused]
    return "\n".join(lines) + "\n"


def _cell(row: Row, tool: str) -> str:
    count = row.counts[tool]
    if count.macs == row.ours and not count.reasons:
        return ""
    text = f"{count.macs - row.ours:+,}"
    if tool in row.unexplained:
        return f"{text} **UNEXPLAINED**, expected {count.expected - row.ours:+,}"
    return f"{text}: " + ", ".join(reason.split()[0] if len(count.reasons) == 1 else reason for reason in count.reasons)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 224])
    parser.add_argument("--markdown", type=Path, help="write the table here")
    arguments = parser.parse_args()
    console, rows = Console(), []
    for name in arguments.models:
        for size in arguments.sizes:
            row = compare(name, size)
            rows.append(row)
            verdict = row.refused or ("UNEXPLAINED: " + ", ".join(row.unexplained) if row.unexplained else "explained")
            console.print(f"{name:28} {size:4} {row.ours:>16,}  {verdict}", highlight=False)
            gc.collect()
    if arguments.markdown:
        arguments.markdown.write_text(markdown(rows))
    return 1 if any(row.unexplained for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
