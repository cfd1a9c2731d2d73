"""Turn a float network into a Brevitas network, layer by layer, with our fused quantisers injected.

Each convolution and linear layer quantises its own *input* and weight, so that the bits of an operation never
depend on what happened on the way to it (an add, a pool): the rule of the contest is met by construction. The
first layer sees the 8-bit image as it is.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from brevitas.inject import ExtendedInjector
from brevitas.nn import QuantConv2d, QuantLinear
from brevitas.proxy import ActQuantProxyFromInjector, WeightQuantProxyFromInjector
from torch import Tensor, nn

from contest.candidate import Bits
from contest.errors import UsageError
from contest.pruning.batches import forward
from contest.quantisation.lsq import LearnedStep, best_step, integer_range, per_output

IMAGE_BITS = 8


@dataclass(frozen=True)
class LayerBits:
    """Bits of one layer. Input bits of None mean that the layer takes the 8-bit image as it is."""

    weights: int
    inputs: int | None


def quantised_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The Brevitas layers by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, QuantConv2d | QuantLinear)}


def layer_bits(model: nn.Module, bits: Bits) -> dict[str, LayerBits]:
    """The bits of each convolution and linear layer, in module order.

    An override names a layer, a prefix of layers, or "first" or "last". Raises UsageError where it fits none.
    """
    layers = [n for n, m in model.named_modules() if type(m) in (nn.Conv2d, nn.Linear)]
    if not layers:
        raise UsageError("the network has no convolution or linear layer to quantise")
    aliases = {"first": layers[0], "last": layers[-1]}
    overrides = {aliases.get(name, name): pair for name, pair in bits.layers.items()}
    chosen = {}
    unused = set(overrides)
    for index, name in enumerate(layers):
        prefixes = [p for p in overrides if name == p or name.startswith(p + ".")]
        unused -= set(prefixes)
        weights, inputs = overrides[max(prefixes, key=len)] if prefixes else (bits.weights, bits.activations)
        # The first layer takes the 8-bit image as it is, unless an override asks for fewer bits.
        image = index == 0 and (inputs == IMAGE_BITS if prefixes else inputs <= IMAGE_BITS)
        chosen[name] = LayerBits(weights, None if image else inputs)
    if unused:
        raise UsageError(f"bits are given for layers {sorted(unused)}, which the network lacks; it has {layers}")
    return chosen


@torch.no_grad()
def quantise(model: nn.Module, bits: Bits, images: Tensor) -> nn.Module:
    """Replace the layers of a trained float network, in place, and choose all steps from data.

    images: a float batch [N,C,H,W] in [0, 1] of training images. Whether an input is signed is read off it.
    Layers with 16 or 32 bits on both sides stay as they are.
    """
    chosen = layer_bits(model, bits)
    inputs = _observe_inputs(model, [n for n, b in chosen.items() if b.inputs is not None], images)
    for name, layer in chosen.items():
        if layer.weights > 8 and (layer.inputs is None or layer.inputs > 8):
            continue
        parent, _, child = name.rpartition(".")
        old = model.get_submodule(name)
        new = _quantised(old, layer, inputs.get(name), bits)
        setattr(model.get_submodule(parent), child, new)
    return model


def calibrate(model: nn.Module, images: Tensor) -> None:
    """Post-training quantisation: choose the activation steps again from `images`, layer after layer.

    Each layer sees what the quantised layers before it really produce.
    """

    def choose(module: nn.Module, args: tuple[Any, ...]) -> None:
        step = activation_quantiser(module)
        if step is not None:
            step.step.data.copy_(best_step(args[0], step.bits, step.signed))

    handles = [layer.register_forward_pre_hook(choose) for layer in quantised_layers(model).values()]
    try:
        _forward(model, images)
    finally:
        for handle in handles:
            handle.remove()


def set_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Put each mask behind the quantiser of its weight (by parameter name, `layer.weight`)."""
    layers = quantised_layers(model)
    for name, mask in masks.items():
        layer = layers.get(name.removesuffix(".weight"))
        quantiser = None if layer is None else weight_quantiser(layer)
        if quantiser is not None:
            weight = model.get_parameter(name)
            quantiser.mask = mask.to(weight.device, torch.bool)


@torch.no_grad()
def dampen(model: nn.Module, strength: float) -> None:
    """Add to the weights' gradients that of `strength` times the squared distance from their grid.

    The distance is that of the weights inside the range, ||clip(w) - quantised(w)||^2, the quantised ones held fixed:
    weights stop to oscillate between two codes (Nagel 2022, arXiv 2203.11086, section 4.1). Weights without a gradient
    stay as they are.
    """
    for layer in quantised_layers(model).values():
        quantiser, weight = weight_quantiser(layer), layer.get_parameter("weight")
        if quantiser is None or quantiser.binary or weight.grad is None:
            continue
        step = per_output(quantiser.positive_step(), weight)
        scaled = weight / step
        away = (scaled - scaled.round()) * step
        inside = (scaled >= quantiser.low) & (scaled <= quantiser.high)
        weight.grad.add_(away * inside, alpha=2 * strength)


def weight_quantiser(layer: nn.Module) -> LearnedStep | None:
    """The weight quantiser that `quantise` gave to a Brevitas layer, if any."""
    found = layer.weight_quant.tensor_quant if isinstance(layer, QuantConv2d | QuantLinear) else None
    return found if isinstance(found, LearnedStep) else None


def activation_quantiser(layer: nn.Module) -> LearnedStep | None:
    """The input quantiser that `quantise` gave to a Brevitas layer, if any."""
    if not isinstance(layer, QuantConv2d | QuantLinear):
        return None
    fused = layer.input_quant.fused_activation_quant_proxy
    found = None if fused is None else fused.tensor_quant
    return found if isinstance(found, LearnedStep) else None


def _quantised(old: nn.Module, bits: LayerBits, seen: Tensor | None, chosen: Bits) -> nn.Module:
    weight_quant = input_quant = None
    weight = old.get_parameter("weight")
    if bits.weights <= 8:
        symmetric = chosen.symmetric and bits.weights < 8
        binary = bits.weights == 1 and not symmetric
        step = best_step(weight, bits.weights, True, binary, chosen.per_channel, symmetric)
        weight_quant = _weight_injector(
            LearnedStep(bits.weights, signed=True, step=step, weight=True, binary=binary, symmetric=symmetric)
        )
    if bits.inputs is not None and bits.inputs <= 8:
        assert seen is not None
        signed = bool((seen < 0).any())
        step = best_step(seen, bits.inputs, signed)
        input_quant = _activation_injector(LearnedStep(bits.inputs, signed=signed, step=step, weight=False))
    quant = {"weight_quant": weight_quant, "input_quant": input_quant, "bias": old.bias is not None}
    if isinstance(old, nn.Conv2d):
        new = QuantConv2d(
            old.in_channels,
            old.out_channels,
            old.kernel_size,
            old.stride,
            old.padding,
            old.dilation,
            old.groups,
            old.padding_mode,
            **quant,
        )
    else:
        assert isinstance(old, nn.Linear)
        new = QuantLinear(old.in_features, old.out_features, **quant)
    new.to(weight.device)
    new.weight = old.weight
    new.bias = old.bias
    # The training loop wants tensors, not Brevitas's QuantTensor wrappers; export switches this off itself.
    for proxy in (new.weight_quant, new.input_quant):
        proxy.skip_create_quant_tensor = True
    new.train(old.training)
    quantised: nn.Module = new
    return quantised


def _weight_injector(quantiser: LearnedStep) -> type[ExtendedInjector]:
    class Weights(ExtendedInjector):
        proxy_class = WeightQuantProxyFromInjector
        tensor_quant = quantiser
        signed = True
        narrow_range = quantiser.binary
        float_to_int_impl_type = "ROUND"
        quant_type = "BINARY" if quantiser.binary else "INT"

    return Weights


def _activation_injector(quantiser: LearnedStep) -> type[ExtendedInjector]:
    class Activations(ExtendedInjector):
        proxy_class = ActQuantProxyFromInjector
        tensor_quant = quantiser
        signed = quantiser.signed
        narrow_range = False
        float_to_int_impl_type = "ROUND"

    return Activations


def _observe_inputs(model: nn.Module, names: list[str], images: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[name] = args[0].detach().float()

        return hook

    handles = [model.get_submodule(n).register_forward_pre_hook(note(n)) for n in names]
    try:
        _forward(model, images)
    finally:
        for handle in handles:
            handle.remove()
    missing = [n for n in names if n not in seen]
    if missing:
        raise UsageError(f"layers {missing} are never called by the network's forward pass")
    return seen


def _forward(model: nn.Module, images: Tensor) -> None:
    with evaluation(model), torch.no_grad():
        forward(model, images)


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, the former mode after."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


OPSET = 13
"""The first opset with per-channel QuantizeLinear, which QCDQ needs."""


def export(
    model: nn.Module, path: Path | str, image_shape: tuple[int, int, int], kind: Literal["qcdq", "qonnx"] = "qcdq"
) -> Path:
    """Write a Brevitas (or float) network as ONNX with a free batch size; the model stays as it is.

    QCDQ runs in ONNX Runtime and holds 2 to 8 bits; QONNX holds 1 bit too and runs in the qonnx package.

    Weights on a symmetric grid have one bit more there: +2^(b-1) is no signed number of b bits.

    Raises UsageError for one-bit weights in QCDQ, and for masked one-bit weights, which neither format can say.
    """
    from brevitas.export import export_onnx_qcdq, export_qonnx

    for name, layer in quantised_layers(model).items():
        quantiser = weight_quantiser(layer)
        if quantiser is None or not quantiser.binary:
            continue
        if kind == "qcdq":
            raise UsageError(f"layer '{name}' has weights of 1 bit, which QCDQ cannot hold; export it as qonnx")
        if quantiser.mask is not None and not bool(quantiser.mask.all()):
            raise UsageError(f"layer '{name}' has masked weights of 1 bit, which QONNX cannot hold; keep the model.pt")
    model = copy.deepcopy(model).cpu().eval()
    for layer in quantised_layers(model).values():
        _widen_symmetric(layer)
        for proxy in (layer.get_submodule("weight_quant"), layer.get_submodule("input_quant")):
            proxy.skip_create_quant_tensor = False  # type: ignore[assignment]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write = export_onnx_qcdq if kind == "qcdq" else export_qonnx
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's and the exporter's own deprecations
        write(
            model,
            args=torch.rand(2, *image_shape),
            export_path=str(path),
            opset_version=OPSET,
            dynamo=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
            keep_initializers_as_inputs=False,
        )
    return path


def _widen_symmetric(layer: nn.Module) -> None:
    """Give the weights of a symmetric grid the bits that hold all their codes, and take them from the grid."""
    quantiser = weight_quantiser(layer)
    if quantiser is None or quantiser.binary or quantiser.high < 2 ** (quantiser.bits - 1):
        return
    weight = layer.get_parameter("weight")
    weight.data = quantiser(weight)[0].detach()
    quantiser.bits += 1
    quantiser.low, quantiser.high = integer_range(quantiser.bits, True)
