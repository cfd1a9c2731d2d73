"""What is saved is what was trained: every architecture, and pairs of bits, scales and pruning."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from contest import networks
from contest.candidate import Architecture, Bits
from contest.model_file import fold_batch_norms, freeze, load, save
from contest.model_file.freeze import Network
from contest.model_file.numbers import norms_behind, to_codes
from contest.pruning.masks import exact_k, prunable
from contest.quantisation import quantise, set_masks

SMALL = {
    "fast_teacher": "fast_teacher:widths=8-12,depth=1",
    "resnet": "resnet:depth=8,width=4",
    "preact": "preact:depth=8,width=4",
    "vgg": "vgg:depth=11,width=0.05",
    "mobilenet": "mobilenet:widths=4-6-8,depths=1-1-1,strides=1-2-2,stem_width=4,head_width=16",
    "dsresnet": "dsresnet:depth=8,width=4",
    "densenet": "densenet:growth=4,depths=2-2-2",
    "thin": "thin:widths=4-6-8,depths=1-1-1",
    "mnist_fc": "mnist_fc:hidden=16-16",
    "mnist_cnn": "mnist_cnn:widths=4-8,hidden=16",
}


def trained(architecture: Architecture, shape: tuple[int, int, int]) -> nn.Module:
    """A network whose statistics, affines and biases are all away from their initial values."""
    torch.manual_seed(0)
    model = networks.build(architecture, shape, 10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    model.train()
    for _ in range(3):
        model(torch.rand(16, *shape))
    return model.eval()


def frozen(model: nn.Module, architecture: Architecture, shape: tuple[int, int, int], bits: Bits) -> Network:
    half = bits.weights == 16
    return freeze(model, architecture, image_shape=shape, classes=10, weight_bits=16 if half else 32)


def shape_of(family: str) -> tuple[int, int, int]:
    return (1, 28, 28) if family.startswith("mnist") else (3, 16, 16)


def test_every_family_has_a_small_network_here() -> None:
    assert set(SMALL) == set(networks.families())


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("bits", [Bits(3, 4), Bits(32, 32)], ids=["w3a4", "float"])
@pytest.mark.parametrize("family", SMALL)
def test_every_architecture(family: str, bits: Bits, ending: str, tmp_path: Path) -> None:
    shape, architecture = shape_of(family), networks.parse(SMALL[family])
    model, x = trained(architecture, shape), torch.rand(16, *shape)
    if bits.quantised:
        quantise(model, bits, x)
    network = frozen(model, architecture, shape, bits)
    again = load(save(network, tmp_path / f"model{ending}"))
    with torch.no_grad():
        expected, got = model(x), network(x)
        assert torch.allclose(got, expected, atol=1e-4)
        assert torch.equal(got.argmax(1), expected.argmax(1))
        assert torch.equal(again(x), got)  # bit for bit from save to load
    assert again.manifest == network.manifest


PAIRS = [
    Bits(weights, activations, per_channel)
    for weights, activations, per_channel in itertools.product((1, 2, 4, 8, 32), (1, 3, 8, 32), (True, False))
    if not (weights == 32 and not per_channel)
]


@pytest.mark.parametrize("sparsity", [0.0, 0.6])
@pytest.mark.parametrize("bits", PAIRS, ids=lambda b: f"w{b.weights}a{b.activations}{'c' if b.per_channel else 't'}")
def test_bits_scales_and_masks(bits: Bits, sparsity: float, tmp_path: Path) -> None:
    shape, architecture = (3, 8, 8), networks.parse(SMALL["thin"])
    model, x = trained(architecture, shape), torch.rand(32, *shape)
    quantise(model, bits, x)
    weights = prunable(model)
    total = sum(w.numel() for w in weights.values())
    masks = exact_k({n: w.detach().abs() for n, w in weights.items()}, total - round(sparsity * total))
    set_masks(model, masks)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.mul_(masks[name])
    network = frozen(model, architecture, shape, bits)
    again = load(save(network, tmp_path / "model.pt"))
    with torch.no_grad():
        assert torch.equal(network(x).argmax(1), model(x).argmax(1))
        assert torch.allclose(network(x), model(x), atol=1e-4)
        assert torch.equal(again(x), network(x))
    zeros = sum(int((t == 0).sum()) for n, t in again.body.state_dict().items() if n.endswith((".codes", ".weight")))
    assert zeros >= round(sparsity * total)


def test_half_precision_is_stored_and_run_in_half(tmp_path: Path) -> None:
    shape, architecture = (3, 8, 8), networks.parse(SMALL["thin"])
    model, x = trained(architecture, shape), torch.rand(16, *shape)
    network = freeze(model, architecture, image_shape=shape, classes=10, weight_bits=16, affine_type=torch.float16)
    again = load(save(network, tmp_path / "model.pt"))
    seen = set()
    for module in again.body.modules():
        if isinstance(module, nn.Module) and hasattr(module, "weight_bits"):
            module.register_forward_hook(lambda _m, _i, out: seen.add(out.dtype))
    logits = again(x)
    assert seen == {torch.float16} and logits.dtype == torch.float32
    assert torch.allclose(logits, model(x), atol=0.02)


def test_folding_first_makes_the_stored_affines_exact() -> None:
    """Multipliers and shifts rounded to half precision, in the training network as in the file."""
    shape, architecture = (3, 8, 8), networks.parse(SMALL["thin"])
    model, x = trained(architecture, shape), torch.rand(32, *shape)
    quantise(model, Bits(4, 4), x)
    before = copy.deepcopy(model)
    fold_batch_norms(model, torch.float16)
    network = freeze(model, architecture, image_shape=shape, classes=10, affine_type=torch.float16)
    with torch.no_grad():
        assert torch.equal(network(x), model(x))
        assert not torch.equal(model(x), before(x))


@pytest.mark.parametrize("family", SMALL)
def test_numbers_of_eight_bits_are_nearly_the_numbers(family: str, tmp_path: Path) -> None:
    shape, architecture = shape_of(family), networks.parse(SMALL[family])
    model, x = trained(architecture, shape), torch.rand(64, *shape)
    quantise(model, Bits(8, 8), x)
    network = freeze(model, architecture, image_shape=shape, classes=10, number_bits=8)
    again = load(save(network, tmp_path / "model.pt"))
    with torch.no_grad():
        expected, got = model(x), network(x)
        assert torch.equal(again(x), got)
    assert (got - expected).std() < 0.1 * expected.std()
    assert (got - expected).mean(0).abs().max() < 0.05 * expected.std(), "the bias takes back what the step gets wrong"


def test_batch_norms_fold_where_they_alone_read_a_convolution() -> None:
    shape = (3, 16, 16)
    names = set(norms_behind(networks.parse(SMALL["thin"]), shape, 10))
    convolutions = {
        n
        for n, m in networks.build(networks.parse(SMALL["thin"]), shape, 10).named_modules()
        if isinstance(m, nn.Conv2d)
    }
    assert names == convolutions
    # Before activation, the sum of two branches is normalised: only what lies inside a branch folds.
    inside = norms_behind(networks.parse(SMALL["preact"]), shape, 10)
    assert inside and all(norm.endswith("norm2") for norm in inside.values())


def test_channels_that_died_do_not_spoil_the_numbers_of_the_others() -> None:
    shape, architecture = (3, 8, 8), networks.parse(SMALL["thin"])
    model, x = trained(architecture, shape), torch.rand(64, *shape)
    with torch.no_grad():
        model.stem.conv.weight[1] = 0  # type: ignore[union-attr, index]
        model.stem.norm.running_mean[1], model.stem.norm.running_var[1] = 0, 1e-12  # type: ignore[union-attr, index]
        model.stem.norm.weight[2] = 0  # type: ignore[union-attr, index]
        model.stages[0][0].body.norm1.weight.zero_()  # type: ignore[index, union-attr]
    quantise(model, Bits(8, 8), x)
    network = freeze(model, architecture, image_shape=shape, classes=10, number_bits=8)
    with torch.no_grad():
        assert (network(x) - model(x)).std() < 0.1 * model(x).std()


def test_codes_of_numbers() -> None:
    values = torch.tensor([-127.0, 3.0, 0.0, 64.0]) * 0.25
    codes, scale = to_codes(values, torch.ones(4))
    assert codes.dtype is torch.int8 and codes.tolist() == [-127, 3, 0, 64] and scale.item() == 0.25
    torch.manual_seed(0)
    values = torch.cat([torch.rand(50), torch.tensor([30.0])])
    codes, scale = to_codes(values, torch.ones(51))
    assert (codes * scale - values).abs().max() <= 30 / 127 / 2 + 1e-6, "all count: the largest is not clipped"
    codes, scale = to_codes(values, torch.cat([torch.ones(50), torch.zeros(1)]))
    assert (codes * scale - values)[:50].abs().max() < 0.01, "it does not count: it is clipped, the others gain"
    codes, scale = to_codes(torch.zeros(3), torch.zeros(3))
    assert (codes * scale).tolist() == [0, 0, 0]


def test_pruned_channels_are_rebuilt(tmp_path: Path) -> None:
    from contest.pruning.structured import remove_channels

    shape, architecture = (3, 16, 16), networks.parse("thin:widths=16-24-32,depths=1-1-1")
    model, x = trained(architecture, shape), torch.rand(8, *shape)
    model = remove_channels(model, 0.4, shape).eval()
    quantise(model, Bits(4, 4), x)
    network = frozen(model, architecture, shape, Bits(4, 4))
    again = load(save(network, tmp_path / "model.pt"))
    with torch.no_grad():
        assert torch.equal(again(x), network(x))
        assert torch.allclose(network(x), model(x), atol=1e-4)
