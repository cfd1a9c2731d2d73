"""From the trained network to the network as it runs: codes for latent weights, affines for folded batch norms."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from contest.candidate import Architecture
from contest.errors import UsageError
from contest.model_file.manifest import (
    Affine,
    ArchitectureSpec,
    ClaimedParent,
    Claims,
    Conv2d,
    LayerSpec,
    Linear,
    Manifest,
    WeightLayer,
)
from contest.model_file.numbers import RoundedNorm, foldable_norms, norms_behind, rounded
from contest.networks import batch_norms
from contest.networks.batch_norms import folded, is_batch_norm, replace_submodule

if TYPE_CHECKING:
    from contest.quantisation.lsq import LearnedStep


@torch.no_grad()
def fold_batch_norms(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Fold each batch norm's statistics into its weight and bias, rounded to `dtype`, in place.

    The network that comes out computes what the file will store, so its accuracy is the file's accuracy.
    """
    for module in model.modules():
        if is_batch_norm(module):
            multiplier, shift = folded(module)
            module.weight.data = multiplier.to(dtype).float()
            module.bias.data = shift.to(dtype).float()
            module.running_mean = torch.zeros_like(shift)
            module.running_var = torch.ones_like(shift)
            module.eps = 0.0
    return model


class Network(nn.Module):
    """The network that is stored and scored: float images [N,C,H,W] in [0, 1] to float32 logits [N, classes].

    `body` is the architecture with its layers in inference form; `manifest` is all that rebuilds it.
    """

    def __init__(self, body: nn.Module, manifest: Manifest) -> None:
        super().__init__()
        self.body, self.manifest = body, manifest
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits.float()


@torch.no_grad()
def freeze(
    model: nn.Module,
    architecture: Architecture,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    weight_bits: int = 32,
    affine_type: torch.dtype = torch.float32,
    number_bits: int = 32,
    parent: ClaimedParent | None = None,
    claims: Claims | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Network:
    """The inference network of a trained float or Brevitas network, which is left as it is.

    weight_bits: 16 runs layers that are not quantised in half precision; 32 leaves them in float32.
    affine_type: the type in which multipliers and shifts of batch norms are stored.
    number_bits: 4 to 8 fold each batch norm into the quantised convolution before it, whose step and bias then have so
        many bits.
    """
    body = copy.deepcopy(model).cpu().eval()
    specs: dict[str, LayerSpec] = {}
    norms = foldable_norms(body, norms_behind(architecture, image_shape, classes)) if number_bits <= 8 else {}
    modules = dict(replaceable(body))
    for name, module in modules.items():
        if name in norms.values():
            channels = len(module.get_parameter("weight"))
            spec = LayerSpec(kind="folded", outputs=channels, inputs=channels)
        else:
            spec = _spec(module, weight_bits, affine_type)
        if name in norms:
            spec = spec.model_copy(update={"bias": True, "per_channel": True, "number_bits": number_bits})
        layer = rebuilt(spec, module)
        if name in norms:
            _fill_folded(layer, module, modules[norms[name]])
        elif spec.kind != "folded":
            _fill(layer, module)
        replace_submodule(body, name, layer)
        specs[name] = spec
    manifest = Manifest(
        architecture=ArchitectureSpec(family=architecture.family, options=dict(architecture.options)),
        image_shape=image_shape,
        classes=classes,
        layers=specs,
        parent=parent,
        claims=claims or Claims(),
        provenance=dict(provenance or {}),
    )
    return Network(body, manifest)


@torch.no_grad()
def thaw(network: Network, images: Tensor) -> nn.Module:
    """The float network of a stored one, to be trained further: weights as stored, batch norms with statistics again.

    images: float [N, C, H, W], from which each batch norm's statistics come; its weight and bias are chosen so that the
    network computes what the stored one does (inputs that were quantised are not any more). Raises UsageError for a
    network whose channels were removed: no architecture makes it.
    """
    from contest.networks import build

    manifest = network.manifest
    architecture = Architecture(manifest.architecture.family, dict(manifest.architecture.options))
    model = build(architecture, manifest.image_shape, manifest.classes).eval()
    modules: dict[str, Any] = dict(replaceable(model))
    behind = norms_behind(architecture, manifest.image_shape, manifest.classes)
    stored = dict(network.body.named_modules())
    for name, module in modules.items():
        layer: Any = stored.get(name)
        if isinstance(layer, Affine):
            batch_norms.set_norm(module, layer.multiplier.float(), layer.shift.float())
        elif isinstance(layer, WeightLayer):
            weight = _weight_of(layer)
            if weight.shape != module.weight.shape:
                raise UsageError(
                    f"layer '{name}' of the network has weights {tuple(weight.shape)}, its architecture "
                    f"{tuple(module.weight.shape)}: channels were removed, so it cannot be trained on"
                )
            module.weight.copy_(weight)
            bias = layer.numbers("bias")
            if module.bias is not None and bias is not None:
                module.bias.copy_(bias)
            elif bias is not None:
                batch_norms.set_norm(modules[behind[name]], torch.ones_like(bias), bias.float())
    norms = [module for module in model.modules() if is_batch_norm(module)]
    batch_norms.measure_norms(model, norms, images)
    return model


def _weight_of(layer: WeightLayer) -> Tensor:
    if layer.weight_bits > 8:
        return layer.weight.float()
    step = layer.numbers("step")
    assert step is not None
    step = step.view(-1, *([1] * (layer.codes.dim() - 1))) if len(step) > 1 else step
    return layer.codes.float() * step.float()


def replaceable(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that have an inference form, by name: convolutions, linear layers and batch norms.

    Subclasses with a forward of their own (timm's padded convolutions, say) keep it and stay float.
    """
    for name, module in model.named_modules():
        plain = type(module) in (nn.Conv2d, nn.Linear) or is_batch_norm(module) or isinstance(module, RoundedNorm)
        if plain or hasattr(module, "weight_quant"):
            yield name, module


def rebuilt(spec: LayerSpec, like: nn.Module, device: torch.device | str = "cpu") -> nn.Module:
    """An empty inference layer of this spec; a convolution takes its stride and padding from `like`."""
    if spec.kind == "folded":
        return nn.Identity()
    if spec.kind == "affine":
        return Affine(spec.outputs, getattr(torch, spec.stored), device)
    if spec.kind == "linear":
        return Linear(spec, device)
    assert isinstance(like, nn.Conv2d)
    if like.padding_mode != "zeros":
        raise UsageError(f"padding mode '{like.padding_mode}' of a convolution; only 'zeros' can be stored")
    return Conv2d(spec, like, device)


def _spec(module: nn.Module, weight_bits: int, affine_type: torch.dtype) -> LayerSpec:
    if is_batch_norm(module):
        channels = module.num_features
        half = affine_type == torch.float16
        return LayerSpec(kind="affine", outputs=channels, inputs=channels, stored="float16" if half else "float32")
    assert isinstance(module, nn.Conv2d | nn.Linear)
    weights, inputs = _quantisers(module)
    if isinstance(module, nn.Linear):
        spec = LayerSpec(kind="linear", outputs=module.out_features, inputs=module.in_features)
    else:
        kernel = list(module.kernel_size)
        spec = LayerSpec(
            kind="conv", outputs=module.out_channels, inputs=module.in_channels, groups=module.groups, kernel=kernel
        )
    return spec.model_copy(
        update={
            "bias": module.bias is not None,
            "weight_bits": weight_bits if weights is None else weights.bits,
            "per_channel": weights is not None and len(weights.step) > 1,
            "input_bits": None if inputs is None else inputs.bits,
            "input_signed": inputs is not None and inputs.signed,
        }
    )


def _quantisers(module: nn.Module) -> tuple[LearnedStep | None, LearnedStep | None]:
    if not hasattr(module, "weight_quant"):
        return None, None
    from contest.quantisation.layers import activation_quantiser, weight_quantiser

    return weight_quantiser(module), activation_quantiser(module)


def _fill_folded(layer: nn.Module, source: Any, norm: Any) -> None:
    """Step and bias take up the batch norm."""
    assert isinstance(layer, WeightLayer)
    weights, inputs = _quantisers(source)
    assert weights is not None
    layer.codes.copy_(weights.codes(source.weight))
    numbers = rounded(source, norm, layer.spec.number_bits)
    layer.step_codes, layer.bias_codes = numbers.codes()
    layer.step_scale, layer.bias_scale = numbers.multiplier_scale.clone(), numbers.shift_scale.clone()
    if inputs is not None:
        layer.input_step.copy_(inputs.positive_step())


def _fill(layer: nn.Module, source: Any) -> None:
    if isinstance(layer, Affine):
        multiplier, shift = folded(source)
        layer.multiplier.copy_(multiplier)
        layer.shift.copy_(shift)
        return
    assert isinstance(layer, WeightLayer)
    weights, inputs = _quantisers(source)
    if weights is not None:
        layer.codes.copy_(weights.codes(source.weight))
        layer.step.copy_(weights.positive_step())
    else:
        layer.weight.copy_(source.weight)
    if layer.bias is not None:
        layer.bias.copy_(source.bias)
    if inputs is not None:
        layer.input_step.copy_(inputs.positive_step())
