"""Families against published counts, torchvision's networks with the same weights, fvcore and arithmetic by hand."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contest import networks
from contest.candidate import Architecture, Candidate
from contest.errors import UsageError
from contest.networks import macs_and_weights
from contest.networks.blocks import ChannelShuffle

SIZES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
SMALL = {
    "resnet": "resnet:depth=8,width=4",
    "preact": "preact:depth=8,width=4",
    "vgg": "vgg11:width=0.05",
    "mobilenet": "mobilenet:width=0.1,head_width=16",
    "dsresnet": "dsresnet:depth=8,width=4",
    "densenet": "densenet:growth=2,depths=2-2-2",
    "thin": "thin:widths=4-8,depths=1-1",
    "mnist_fc": "mnist_fc:hidden=8-8",
    "mnist_cnn": "mnist_cnn:widths=2-4,hidden=8",
    "fast_teacher": "fast_teacher:widths=4-8",
}
VARIANTS = [
    *SMALL.values(),
    "resnet:depth=8,width=4,shortcut=pad,stem_stride=2,zero_last=true",
    "resnet:block=bottleneck,widths=4-8,depths=1-1,activation=hardswish",
    "preact:depth=8,width=4,shortcut=pad",
    "vgg:depth=13,width=0.05,hidden=8-8,dropout=0.5",
    "vgg:widths=4-8,depths=1-2,stem_width=6,pool=first",
    "mobilenet:width=0.1,kernel=5,stem_stride=2,head_width=0,activation=relu6",
    "densenet:growth=4,depths=2-2,groups=2,bottleneck=0,stem_width=4,reduction=1.0",
    "thin:block=basic,groups=2,widths=4-8,depths=1-2,stem_width=6,stem_kernel=2,stem_stride=2",
    "thin:block=bottleneck,groups=2,widths=4-8,depths=1-2,strides=2-1,kernel=5,dropout=0.1",
    "thin:block=inverted,widths=4-8,depths=2-2,expansion=1.5,head_width=12",
    "thin:block=inverted,widths=4-8,depths=2-2,expansion=1.5,tail=wide,dropout=0.1",
    "thin:block=inverted,widths=4-8,depths=1-1,expansion=1,tail=wide",
    "thin:block=inverted,widths=4-8,depths=2-2,stem_width=3,shortcut=pool,tail=wide",
    "thin:block=separable,widths=4-8,depths=1-2,shortcut=pool,expansion=0.5",
    "preact:depth=8,width=4,shortcut=pool",
    "thin:block=separable,widths=4-8,depths=1-2,shortcut=pad,expansion=0.5",
]


def build(name: str, shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    return networks.build(networks.parse(name), shape, classes)


def parameters(name: str, shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build(name, shape, classes).parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # He 2015, table 6 (0.27M, 0.46M, 0.66M, 0.85M, 1.7M): padded shortcuts have no parameters; the exact counts
        # are those of the much used reimplementation by Y. Idelbayev (akamaster/pytorch_resnet_cifar10).
        ("resnet20:shortcut=pad", 269_722),
        ("resnet32:shortcut=pad", 464_154),
        ("resnet44:shortcut=pad", 658_586),
        ("resnet56:shortcut=pad", 853_018),
        ("resnet110:shortcut=pad", 1_727_962),
        # Projections with batch norm add 16*32 + 2*32 + 32*64 + 2*64 = 2,752.
        ("resnet20", 272_474),
        ("resnet56", 855_770),
        # The contest's reference, and torchvision's networks with a 3x3 stem and ten classes (kuangliu/pytorch-cifar).
        ("resnet18", 11_173_962),
        ("resnet34", 21_282_122),
        ("resnet50", 23_520_842),
        ("resnet101", 42_512_970),
        # kuangliu's PreActResNet18 has 11,171,146; the paper's last batch norm (2*512) is missing there.
        ("preact18", 11_171_146 + 1_024),
        # kuangliu's VGG11 and VGG16 have 9,231,114 and 14,728,266 with a bias before each batch norm, where it
        # does nothing (2,752 and 4,224 channels).
        ("vgg11", 9_231_114 - 2_752),
        ("vgg16", 14_728_266 - 4_224),
        # chengyangfu/pytorch-vgg-cifar10, three linear layers: 15,253,578 with those biases.
        ("vgg16:hidden=512-512", 15_253_578 - 4_224),
        # Huang 2017, table 2: 0.8M and 1.0M; exact counts of A. Veit's densenet-pytorch.
        ("densenet100", 769_162),
        ("densenet40", 1_019_722),
        # kuangliu's DenseNet121.
        ("densenet121", 6_956_298),
    ],
)
def test_published_parameter_counts(name: str, count: int) -> None:
    assert parameters(name) == count


def test_mobilenet_has_the_published_counts() -> None:
    # torchvision's documentation of MobileNet_V2_Weights; its width 0.5 and 1.4 as in the paper's repository.
    assert parameters("mobilenetv2", classes=1000) == 3_504_872
    assert parameters("mobilenetv2:width=0.5", classes=1000) == 1_968_680
    assert parameters("mobilenetv2:width=1.4", classes=1000) == 6_108_776


def test_the_early_vgg_pools_behind_each_stages_first_convolution() -> None:
    # MACs written out: kernel * in * out * pixels of the output, on maps of 32, 32, 16, 16, 8, 8 and 4 pixels a side.
    layers = [(3, 24, 32), (24, 64, 32), (64, 64, 16), (64, 256, 16), (256, 256, 8), (256, 256, 8), (256, 256, 4)]
    macs = sum(9 * inputs * out * side**2 for inputs, out, side in layers) + 256 * 10
    assert macs_and_weights(networks.parse("vgg-early"), (3, 32, 32))[0] == macs


def test_mnist_networks_have_the_laboratory_counts() -> None:
    assert parameters("mnist_fc", (1, 28, 28)) == 1_863_690
    assert macs_and_weights(networks.parse("mnist_cnn"), (1, 28, 28))[1] == 1_199_648
    dropouts = [m.p for m in build("mnist_cnn", (1, 28, 28)).modules() if isinstance(m, nn.Dropout)]
    assert dropouts == [0.25, 0.5]


def test_the_reference_to_the_unit() -> None:
    assert macs_and_weights(networks.parse("resnet18")) == (555_417_600 + 5_120, 11_173_962 - 9_600 - 10)


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Weights and statistics from one network to another with the same layers in the same order."""
    values = [v for k, v in source.state_dict().items() if not k.startswith("normalise")]
    state = target.state_dict()
    keys = [k for k in state if not k.startswith("normalise")]
    assert [state[k].shape for k in keys] == [v.shape for v in values]
    target.load_state_dict({**state, **dict(zip(keys, values, strict=True))})


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenetv2"])
def test_same_function_as_torchvision(name: str) -> None:
    import torchvision.models as zoo

    torch.manual_seed(0)
    reference: Any
    if name == "mobilenetv2":
        reference = zoo.mobilenet_v2(num_classes=10)
        name += ":strides=1-2-2-2-1-2-1,stem_stride=2,activation=relu6"
    else:
        reference = getattr(zoo, name)(num_classes=10)
        reference.conv1, reference.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    model = build(name).eval()
    copy_in_order(reference.eval(), model)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        normalised = (x - torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)) / torch.tensor(
            [0.2470, 0.2435, 0.2616]
        ).view(3, 1, 1)
        torch.testing.assert_close(model(x), reference(normalised), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_macs_equal_fvcore(name: str) -> None:
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    shape = (3, 32, 32)
    model = build(name).eval()
    counted = FlopCountAnalysis(model, torch.zeros(1, *shape)).unsupported_ops_warnings(False).by_operator()
    macs, weights = networks.macs_and_weights(networks.parse(name), shape)
    assert macs == sum(counted[kind] for kind in ("conv", "linear", "addmm", "matmul") if kind in counted)
    assert weights == sum(m.weight.numel() for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))


def test_thin_macs_by_hand() -> None:
    # stem 3->8 at 32x32; stage 1: conv 8->8, 8->8 at 32x32; stage 2: 8->16 (stride 2), 16->16, projection 1x1 at 16x16.
    stem, first = 27 * 8 * 1024, 2 * 72 * 8 * 1024
    second = (72 * 16 + 144 * 16 + 8 * 16) * 256
    architecture = networks.parse("thin:widths=8-16,depths=1-1")
    assert networks.macs_and_weights(architecture) == (
        stem + first + second + 160,
        216 + 2 * 576 + 1152 + 2304 + 128 + 160,
    )


def test_thin_presets_are_named_after_their_macs() -> None:
    for name, architecture in networks.presets().items():
        if architecture.family == "thin":
            millions = int("".join(c for c in name if c.isdigit()))
            assert networks.macs_and_weights(architecture)[0] / 1e6 == pytest.approx(millions, abs=0.5)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_size_trains(name: str, shape: tuple[int, int, int]) -> None:
    model = build(name, shape, classes=7)
    assert next(iter(dict(model.named_children()))) == "normalise"
    logits = model(torch.rand(2, *shape))
    assert logits.shape == (2, 7) and bool(logits.isfinite().all())
    logits.logsumexp(1).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", [*networks.presets(), "mnist_fc", "mnist_cnn", "thin", "mobilenet"])
def test_presets_build_on_meta_at_imagenet_size(name: str) -> None:
    with torch.device("meta"):
        model = build(name, (3, 224, 224), 1000).eval()
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_layers_are_modules(name: str) -> None:
    """Everything with weights, every activation and pool is a module that can be found and swapped by name."""
    model = build(name)
    graph = torch.fx.symbolic_trace(model).graph
    functions = {getattr(node.target, "__name__", node.target) for node in graph.nodes if node.op == "call_function"}
    assert functions <= {"add", "sub", "truediv", "mul", "cat"}
    methods = {str(node.target) for node in graph.nodes if node.op == "call_method"}
    assert methods <= ({"unflatten", "transpose", "flatten"} if "block=basic,groups" in name else set())
    modules = [module for module in model.modules() if not list(module.children())]
    assert len(modules) == len(set(modules)) and not any(getattr(m, "inplace", False) for m in modules)


@pytest.mark.parametrize("name", VARIANTS)
def test_equal_seeds_give_equal_networks(name: str) -> None:
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(build(name).state_dict())
    first, again, other = states
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", VARIANTS)
def test_architecture_survives_json_and_text(name: str) -> None:
    architecture = networks.parse(name)
    assert Candidate.from_json(Candidate(architecture).to_json()).architecture == architecture
    assert networks.parse(str(architecture)) == architecture
    # Options as JSON leaves them (lists for tuples) build the same network.
    plain = Architecture(architecture.family, json.loads(json.dumps(dataclasses.asdict(architecture)))["options"])
    with torch.device("meta"):
        shapes = [[p.shape for p in networks.build(a).parameters()] for a in (architecture, plain)]
    assert shapes[0] == shapes[1]


def test_normalise_is_what_it_says() -> None:
    model = build("mnist_fc", (1, 8, 8))
    normalise = model.get_submodule("normalise")
    assert not list(normalise.parameters())
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(normalise(x), (x - 0.1307) / 0.3081)
    assert set(dict(normalise.named_buffers())) == {"mean", "std"}


def test_initialisation_keeps_the_signal() -> None:
    """Kaiming: the variance of the activations neither dies nor explodes through 16 layers without batch norm."""
    torch.manual_seed(0)
    model = build("vgg16:width=0.5").eval()
    x = torch.randn(2, 3, 32, 32)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels
            assert float(module.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    features = nn.Sequential(*model.children())[:3](x)
    assert 1e-3 < float(features.detach().std()) < 1e3


def test_channel_shuffle_is_torchs() -> None:
    x = torch.rand(2, 12, 3, 5)
    for groups in (1, 2, 3, 4, 6, 12):
        assert torch.equal(ChannelShuffle(groups)(x), nn.ChannelShuffle(groups)(x))


def test_zero_last_makes_blocks_identities() -> None:
    block = build("resnet:depth=8,width=4,zero_last=true").eval().get_submodule("stages.0.0")
    x = torch.rand(1, 4, 8, 8)
    torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnt20", "no network is called 'resnt20'"),
        ("resnet:dept=20", "'resnet' has no option 'dept'; it has depth, width"),
        ("resnet:depth=21", "depth = 21: must be 6 n \\+ 2"),
        ("resnet:depth=twenty", "depth = 'twenty': must be of type int"),
        ("resnet:width=0", "width = 0: must lie between 1 and 8192"),
        ("resnet:width=2.5", "width = 2.5: must be of type int"),
        ("resnet:widths=16-x", "widths = '16-x': must be integers"),
        ("resnet:widths=16-32,depths=1-1-1", "has 3 stages, widths = \\(16, 32\\) has 2"),
        ("resnet:widths=32-16,depth=10,shortcut=pad", "cannot go from 32 to 16 channels"),
        ("resnet:shortcut=none", "shortcut = 'none': must be one of projection, pad"),
        ("resnet:zero_last=1", "zero_last = 1: must be of type bool"),
        ("resnet:depth", "'depth' in 'depth' is no option"),
        ("vgg:depth=12", "depth = 12: must be one of 11, 13, 16, 19"),
        ("mobilenet:kernel=4", "kernel = 4: must be odd"),
        ("densenet:growth=3,groups=2", "groups = 2 does not divide"),
        ("thin:groups=3", "groups = 3 does not divide the 16 input channels"),
        ("thin:block=inverted,groups=2", "groups = 2: must be 1 with block 'inverted'"),
        ("mnist_cnn:widths=32", "widths = \\(32,\\): must be two"),
    ],
)
def test_what_cannot_be_built_is_said(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(text)


def test_impossible_images_are_said() -> None:
    with pytest.raises(UsageError, match="at least 6x6"):
        build("mnist_cnn", (1, 5, 9))
    with pytest.raises(UsageError, match="must be \\(channels, height, width\\)"):
        build("resnet20", (3, 0, 32))
    with pytest.raises(UsageError, match="classes = 0"):
        build("resnet20", classes=0)
    with pytest.raises(UsageError, match="stem_kernel = 14 is too large for images of 1x1"):
        build("thin:stem_kernel=14", (3, 1, 1))


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 24), min_size=1, max_size=4),
    depth=st.integers(1, 3),
    block=st.sampled_from(["basic", "bottleneck", "inverted", "separable"]),
    expansion=st.floats(0.1, 4),
    kernel=st.sampled_from([1, 3, 5]),
    stem_stride=st.integers(1, 4),
    head_width=st.integers(0, 16),
    shape=st.sampled_from([(1, 8, 8), (3, 32, 32), (3, 17, 23), (5, 1, 1)]),
)
def test_thin_builds_everywhere(shape: tuple[int, int, int], widths: list[int], depth: int, **options: Any) -> None:
    architecture = Architecture("thin", {"widths": tuple(widths), "depths": (depth,) * len(widths), **options})
    assert networks.parse(str(architecture)) == networks.parse(str(networks.parse(str(architecture))))
    with torch.device("meta"):
        assert networks.build(architecture, shape, 3).eval()(torch.empty(2, *shape)).shape == (2, 3)


def test_families_are_listed_without_timm() -> None:
    code = (
        "import sys; from contest import networks; n = networks.build(networks.parse('resnet8'));"
        "assert 'timm' not in sys.modules and 'torchvision' not in sys.modules; print(*networks.families())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(out.split()) == set(networks.families()) == set(SMALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("timm/mobilenetv3_small_050", (3, 32, 32)),
        ("timm/resnet18", (1, 28, 28)),
        ("timm/vit_tiny_patch16_224", (3, 32, 32)),
        ("timm/efficientnet_b0", (3, 32, 32)),
        ("timm/mixer_s16_224", (3, 64, 64)),
    ],
)
def test_timm_models(name: str, shape: tuple[int, int, int]) -> None:
    model = build(name, shape, 7).eval()
    assert next(iter(dict(model.named_children()))) == "normalise"
    assert model(torch.rand(2, *shape)).shape == (2, 7)
    macs, weights = networks.macs_and_weights(networks.parse(name), shape, 7)
    assert macs > 0 and 0 < weights <= sum(p.numel() for p in model.parameters())


@pytest.mark.slow
def test_unknown_timm_models_are_said() -> None:
    with pytest.raises(UsageError, match=r"timm has no model 'resnet18x'; near it: .*resnet"):
        build("timm/resnet18x")
    with pytest.raises(UsageError, match=r"'resnet18' cannot be built .*depht"):
        build("timm/resnet18:depht=3")


@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained", "pretrained_cfg", "cache_dir", "scriptable"])
def test_timm_opens_and_loads_nothing_that_an_option_names(option: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"not a checkpoint")
    with pytest.raises(UsageError, match=f"'{option}' is not an option of a network"):
        networks.build(Architecture("timm/resnet10t", {option: str(secret)}))


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("thin", {"widths": []}),
        ("timm/resnet10t", {"act_layer": "nonsense"}),
        ("timm/resnet10t", {"block": "x"}),
        ("timm/convnext_atto", {"dims": [1]}),
    ],
)
def test_options_that_cannot_be_built_are_said(family: str, options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="cannot be built"):
        networks.build(Architecture(family, options))


def test_opposites_are_computed_once_and_cost_half() -> None:
    """A stem of 8 filters gives 16 maps, half of which are the others' negatives before the ReLU: relu(x), relu(-x)."""
    options = "block=inverted,stem_width=16,widths=24-60,depths=2-3,strides=2-2,expansion=4"
    macs = {
        choice: networks.macs_and_weights(networks.parse(f"thin:{options},opposites={choice}"), (3, 32, 32), 10)[0]
        for choice in ("none", "stem", "first", "all")
    }
    stem, first = 8 * 3 * 9 * 32 * 32, 16 * 32 * 32 * 32
    others = 24 * 48 * 16 * 16 * 2 + 60 * 120 * 8 * 8 * 2
    assert macs["none"] - macs["stem"] == stem
    assert macs["stem"] - macs["first"] == first
    assert macs["first"] - macs["all"] == others
    model = networks.build(networks.parse(f"thin:{options},opposites=stem"), (3, 32, 32), 10).eval()
    images = torch.rand(2, 3, 32, 32)
    seen = model.get_submodule("stem")(model.get_submodule("normalise")(images))
    plain = model.get_submodule("stem.norm")(model.get_submodule("stem.conv")(model.get_submodule("normalise")(images)))
    torch.testing.assert_close(seen, torch.cat([plain.clamp(min=0), (-plain).clamp(min=0)], 1))


def test_opposites_need_pairs_and_blocks_that_widen() -> None:
    with pytest.raises(UsageError, match="15 channels cannot be pairs of opposites"):
        networks.build(networks.parse("thin:stem_width=15,opposites=stem"), (3, 32, 32), 10)
    with pytest.raises(UsageError, match="opposites = all: needs block 'inverted'"):
        networks.build(networks.parse("thin:opposites=all"), (3, 32, 32), 10)


def test_a_wide_tail_costs_neither_the_last_1x1_nor_its_weights() -> None:
    """Of 60 channels widened to 240 on 8x8 pixels; the classifier has 240 inputs more."""
    options = "block=inverted,stem_width=16,widths=24-60,depths=2-3,strides=2-2,expansion=4"
    macs, weights = networks.macs_and_weights(networks.parse(f"thin:{options}"), (3, 32, 32), 10)
    fewer, lighter = networks.macs_and_weights(networks.parse(f"thin:{options},tail=wide"), (3, 32, 32), 10)
    assert macs - fewer == 240 * 60 * 8 * 8 - 240 * 10
    assert weights - lighter == 240 * 60 - 240 * 10


def test_a_wide_tail_needs_a_last_1x1_without_an_activation() -> None:
    for options in ("tail=wide", "block=inverted,head_width=8,tail=wide"):
        with pytest.raises(UsageError, match="tail = wide: needs block 'inverted'"):
            networks.build(networks.parse(f"thin:{options}"), (3, 32, 32), 10)


def test_a_pooled_shortcut_adds_the_means_of_squares_and_costs_nothing() -> None:
    options = "thin:block=inverted,widths=4-8,depths=1-1,stem_width=4,strides=2-2"
    pooled, plain = (networks.parse(f"{options},shortcut={kind}") for kind in ("pool", "projection"))
    assert networks.macs_and_weights(pooled) == networks.macs_and_weights(plain)
    block = networks.build(pooled).get_submodule("stages.0.0").eval()
    x = torch.rand(2, 4, 6, 6)
    added = block(x) - block.get_submodule("body")(x)
    torch.testing.assert_close(added, x.view(2, 4, 3, 2, 3, 2).mean((3, 5)))
    with pytest.raises(UsageError, match="shortcut 'pool' cannot go from 8 to 4 channels"):
        networks.build(networks.parse("resnet:widths=8-4,depths=1-1,shortcut=pool"))
