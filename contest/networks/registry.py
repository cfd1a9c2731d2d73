"""The one list of families. A family is a function in a module of this package; add its name here.

A function takes `(image_shape, classes, *, options...)`; types and limits of the options stand in its signature
(`contest.networks.options`). Its module may also have PRESETS (names for chosen options), RECIPES (the float training
of a preset), DRAWS and `from_draws` (how a search draws its options and what they become; else they are derived from
the signature), and ROW (other fields of its `Family`, such as `by_default`). Every layer is a module, `flatten` too,
so that channels can be removed and the file rebuilt.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from contest.candidate import Architecture, Recipe
from contest.errors import ContestError, UsageError, did_you_mean
from contest.networks.options import Family, OptionSpec, bind, derived, parse_options, specs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from contest.networks.blocks import Statistics

FAMILIES = (
    "resnet",
    "preact",
    "vgg",
    "mobilenet",
    "dsresnet",
    "densenet",
    "thin",
    "mnist_fc",
    "mnist_cnn",
    "fast_teacher",
)
"""Each is a module of this package that holds a function of the same name."""

TIMM = "timm/"


def families() -> tuple[str, ...]:
    """Names of the built-in families; `timm/<name>` comes on top of them."""
    return FAMILIES


@cache
def presets() -> Mapping[str, Architecture]:
    """Names such as `resnet20` and what they stand for."""
    found = {}
    for family in families():
        for name, chosen in getattr(_module(family), "PRESETS", {}).items():
            found[name] = Architecture(family, chosen)
    return found


def options(family: str) -> Mapping[str, OptionSpec]:
    """The options of a built-in family with their defaults and limits."""
    return specs(_function(family))


@cache
def family_rows() -> Mapping[str, Family]:
    """Each family's row: its function, its options, how a search draws them, its first and last layer."""
    rows = {}
    for name in families():
        module, function = _module(name), _function(name)
        known = specs(function)
        draws, from_draws = derived(name, known)
        if hasattr(module, "DRAWS"):
            draws, from_draws = dict(module.DRAWS), module.from_draws
        extra = dict(getattr(module, "ROW", {}))
        rows[name] = Family(name, function, known, draws, from_draws, **extra)
    return rows


def parse(text: str) -> Architecture:
    """`resnet20`, `resnet:depth=20,width=12`, `resnet18:shortcut=pad`, `timm/mobilenetv3_small_100`.

    The inverse of `str(architecture)`. Raises UsageError for an unknown family or option.
    """
    name, _, rest = text.strip().partition(":")
    chosen = parse_options(rest)
    if name in presets():
        preset = presets()[name]
        architecture = Architecture(preset.family, {**preset.options, **chosen})
    else:
        architecture = Architecture(name, chosen)
    if not name.startswith(TIMM):
        return Architecture(
            architecture.family, bind(architecture.family, _function(architecture.family), architecture.options)
        )
    return architecture


def recipe(text: str) -> Recipe:
    """The float training that belongs to a name, `fast-teacher` or with options; a plain one for most."""
    name = text.strip().partition(":")[0]
    preset = presets().get(name)
    return getattr(_module(preset.family), "RECIPES", {}).get(name, Recipe()) if preset else Recipe()


def see(model: nn.Module, images: Tensor, statistics: Statistics | None = None) -> None:
    """Show a new network its data set before it is trained.

    Args:
        images: some training images, float [N, C, H, W] in [0, 1]: a whitening layer is made from them.
        statistics: (mean, standard deviation) by channel, with which it normalises from now on; None: as it did.
    """
    children = dict(model.named_children())
    if statistics is not None:
        children["normalise"].use(statistics)  # type: ignore[operator]
    look = getattr(children.get("stem"), "see", None)
    if look is not None:
        look(children["normalise"](images))


def build(architecture: Architecture, image_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """A new network that takes float images [N, C, H, W] in [0, 1] and gives logits [N, classes].

    Its first child is `normalise`. Weights come from torch's global random state: equal seeds, equal
    networks. Raises UsageError for options that cannot be built.
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise UsageError(f"image shape {tuple(image_shape)}: must be (channels, height, width), each at least 1")
    if classes < 1:
        raise UsageError(f"classes = {classes}: must be at least 1")
    shape = (int(image_shape[0]), int(image_shape[1]), int(image_shape[2]))
    if architecture.family.startswith(TIMM):
        name = architecture.family.removeprefix(TIMM)
        return _timm().build_timm(name, shape, classes, architecture.options)  # type: ignore[no-any-return]
    family = _function(architecture.family)
    options = bind(architecture.family, family, architecture.options)
    try:
        return family(shape, classes, **options)  # type: ignore[no-any-return]
    except ContestError:
        raise
    except Exception as error:  # options that fit one by one and not together: lists of no or of two lengths
        raise UsageError(
            f"{architecture} cannot be built for images {shape}: {type(error).__name__}: {error}"
        ) from error


@lru_cache(maxsize=65536)
def macs_and_weights(
    architecture: Architecture, image_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10
) -> tuple[int, int]:
    """(multiply-accumulates for one image, prunable weights) in milliseconds, without memory for weights
    (the first call of a process waits 2 s for torch's import of its meta kernels).

    MACs are those of convolutions, linear layers and matrix products (attention), counted by torch's own
    operator counter on the meta device. Weights are those of convolutions and linear layers, without
    biases and batch norm. Raises UsageError where the architecture cannot be built.
    """
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = build(architecture, image_shape, classes).eval()
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            model(torch.empty(1, *image_shape))
    layers = (module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear)))
    return counter.get_total_flops() // 2, sum(layer.weight.numel() for layer in layers)


def _timm() -> ModuleType:
    return importlib.import_module("contest.networks.timm_models")


def _module(family: str) -> ModuleType:
    return importlib.import_module(f"contest.networks.{family}")


def _function(family: str) -> Callable[..., Any]:
    if family not in FAMILIES:
        near = did_you_mean(family, [*families(), *presets()])
        raise UsageError(
            f"no network is called '{family}'{near}; families: {', '.join(families())}, {TIMM}<name>; "
            f"presets: {', '.join(presets())}"
        )
    return getattr(_module(family), family)  # type: ignore[no-any-return]
