"""The same network through different readers: equal costs, operation by operation."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contest.errors import RefusedError, UsageError
from contest.networks import build, parse
from scoring.analysis.cost_model import analyse
from scoring.convert import convert_file, convert_module
from scoring.costs import Costs
from scoring.graph.interpreter import logits_of
from scoring.readers.read import read, subject_of_module
from scoring.readers.user_module import load_module, subject_of_user_module
from scoring.score import score_file
from tests.attacks import makers, onnx_makers
from tests.scoring.helpers import Network, quantise, subject, through_onnx

ARCHITECTURES = ("resnet8", "mobilenet:width=0.25", "densenet:depth=10,growth=4", "dsresnet", "preact:depth=8", "vgg11")


def same(a: Costs, b: Costs) -> bool:
    assert a.operations == b.operations
    assert sorted((n.layer, n.count, n.bits) for n in a.numbers) == sorted(
        (n.layer, n.count, n.bits) for n in b.numbers
    )
    return a.unknown_operations == b.unknown_operations == () and a.problems == b.problems == ()


@pytest.mark.parametrize("name", ["resnet8", "dsresnet"])
def test_architectures_through_torch_and_onnx(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(parse(name)).eval()
    written = through_onnx(model, tmp_path, (3, 32, 32))
    assert same(analyse(subject(model, (3, 32, 32)).graph), analyse(written.graph))
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(written.run(images), model(images), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(logits_of(written.graph, images), model(images), rtol=1e-3, atol=1e-3)


def everything() -> Network:
    """One of nearly each operation of the vocabulary."""

    def run(s: nn.Module, x: Tensor) -> Tensor:
        x = s.bn(s.conv((x - s.mean) / s.std))
        x = F.silu(x) + F.hardswish(x) * F.hardsigmoid(s.gate(F.adaptive_avg_pool2d(x, 1)))
        x = F.leaky_relu(s.grouped(quantise(x, s.scale, -8, 7)), 0.1)
        x = torch.cat([F.max_pool2d(x, 2), F.avg_pool2d(x, 2)], 1)
        x = F.gelu(s.up(F.channel_shuffle(F.pad(x, (1, 0, 1, 0)), 2)))
        x = F.relu6(s.prelu(s.dilated(x[:, 1:5])))
        tokens = F.elu(s.embed(x.flatten(2).transpose(1, 2)))
        mixed = s.attention(tokens, tokens, tokens, need_weights=False)[0]
        return s.fc(torch.tanh(mixed.mean(1)))

    torch.manual_seed(0)
    return Network(
        run,
        mean=torch.rand(3, 1, 1),
        std=torch.rand(3, 1, 1) + 0.5,
        scale=torch.tensor([0.1]),
        conv=nn.Conv2d(3, 8, 3, padding="same", bias=False),
        bn=nn.BatchNorm2d(8),
        gate=nn.Conv2d(8, 8, 1),
        grouped=nn.Conv2d(8, 4, 3, groups=2, padding=1),
        up=nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2),
        prelu=nn.PReLU(5),
        dilated=nn.Conv2d(4, 5, 3, dilation=2, padding=1),
        embed=nn.Linear(5, 8),
        attention=nn.MultiheadAttention(8, 2, batch_first=True),
        fc=nn.Linear(8, 10),
    ).eval()


def test_every_operation_through_torch_and_onnx(tmp_path: Path) -> None:
    net = everything()
    written = through_onnx(net, tmp_path)
    assert same(analyse(subject(net).graph), analyse(written.graph))
    images = torch.rand(4, 3, 8, 8)
    assert written.max_batch == 1  # attention moves the dimension of the images
    answers = torch.cat([written.run(image[None]) for image in images])
    torch.testing.assert_close(answers, net(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits_of(subject(net).graph, images), net(images), rtol=1e-4, atol=1e-4)


def test_graph_runs_as_the_module_does() -> None:
    from scoring.graph.interpreter import run_graph

    net = everything()
    graph, images = subject(net).graph, torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(run_graph(graph, images)[graph.output], net(images), rtol=1e-4, atol=1e-5)


def test_torchs_own_exporter_gives_the_same_layers(tmp_path: Path) -> None:
    model = build(parse("resnet8")).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)  # equal tensors would be stored once
    path = tmp_path / "exported.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.rand(1, 3, 32, 32),), str(path), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
        )
    exported, own = analyse(read(path).graph), analyse(subject(model, (3, 32, 32)).graph)
    figures = [
        [(op.kind, op.macs, op.weights, op.activation_bits) for op in c.operations if op.macs] for c in (exported, own)
    ]
    assert figures[0] == figures[1]
    # The exporter folds batch norms into weights; such a file keeps only the shifts.
    multipliers = sum(n.count for n in own.numbers if n.name.endswith(".multiplier"))
    assert own.parameters - exported.parameters == multipliers - 3


def student() -> nn.Module:
    """What a user's factory builds."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def test_masks_and_half_precision_come_from_the_weights(tmp_path: Path) -> None:
    from torch.nn.utils import prune

    trained = student()
    prune.l1_unstructured(trained[0], "weight", 0.5)
    torch.save(trained.half().state_dict(), tmp_path / "weights.pt")
    arch = f"{__name__}:student"
    found = analyse(subject_of_user_module(load_module(arch, tmp_path / "weights.pt"), (3, 8, 8)).graph)
    assert (found.weights, found.nonzeros) == (216 + 80, 108 + 80)
    assert {op.weight_bits for op in found.operations if op.weights} == {16}
    converted = convert_file(tmp_path / "weights.pt", tmp_path / "out.onnx", arch=arch, image_shape=(3, 8, 8))
    assert same(found, converted)
    assert same(found, analyse(read(tmp_path / "out.onnx").graph))


def brevitas_network(weight_bits: int = 3) -> nn.Module:
    import brevitas.nn as qnn

    torch.manual_seed(0)
    model = nn.Sequential(
        qnn.QuantIdentity(bit_width=8),
        qnn.QuantConv2d(3, 8, 3, padding=1, bias=False, weight_bit_width=weight_bits),
        nn.BatchNorm2d(8),
        qnn.QuantReLU(bit_width=4),
        nn.MaxPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(128, 10, bias=True, weight_bit_width=weight_bits, weight_scaling_per_output_channel=True),
    )
    model(torch.rand(16, 3, 8, 8))
    return model.eval()


@pytest.mark.slow
def test_brevitas_through_qonnx_and_qcdq(tmp_path: Path) -> None:
    from brevitas.export import export_onnx_qcdq

    model = brevitas_network()
    tables = [
        analyse(subject_of_user_module(model, (3, 8, 8)).graph),
        convert_module(model, tmp_path / "q.onnx", (3, 8, 8)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx_qcdq(model, args=torch.rand(1, 3, 8, 8), export_path=str(tmp_path / "qcdq.onnx"))
    tables.append(analyse(read(tmp_path / "qcdq.onnx").graph))
    for table in tables:
        layers = [op for op in table.operations if op.macs]
        assert [(op.macs, op.weight_bits, op.activation_bits) for op in layers] == [(64 * 8 * 27, 3, 8), (1280, 3, 4)]
        # affine 8 + 8, linear scale and bias 10 + 10, one scale for each of two activation quantisers
        assert sorted(n.count for n in table.numbers) == [1, 1, 8, 8, 10, 10]
        assert table.problems == ()
    assert tables[0] == tables[1]


def test_what_is_not_accepted_says_how_to_convert(tmp_path: Path) -> None:
    for name in ("model.pt2", "model.pkl", "model.zip"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(RefusedError, match="contest convert"):
            read(tmp_path / name)


def test_pickled_modules_are_refused_without_their_code(tmp_path: Path) -> None:
    torch.save(student(), tmp_path / "weights.pt")
    with pytest.raises(RefusedError, match="contest score FILE --arch"):
        read(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("arch", "message"),
    [("nothing", "package.module:factory"), ("no.such:thing", "cannot be imported"), ("math:pi", "not callable|float")],
)
def test_wrong_arch(arch: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_module(arch, None)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    torch.save({"0.weight": torch.rand(1)}, tmp_path / "weights.pt")
    with pytest.raises(RefusedError, match="the weights do not fit the module"):
        load_module(f"{__name__}:student", tmp_path / "weights.pt")


def test_provenance_goes_along_into_every_format(tmp_path: Path) -> None:
    facts = {"seed": "3", "recipe": "x" * 5_000}
    content = makers.quantised()
    changed = makers.with_manifest(content, lambda manifest: manifest.update(provenance=facts, claims={"p_u": 0.5}))
    (tmp_path / "model.pt").write_bytes(makers.torch_bytes(changed))
    convert_file(tmp_path / "model.pt", tmp_path / "model.onnx")
    reports = [score_file(tmp_path / name, trust=True) for name in ("model.pt", "model.onnx")]
    for report in reports:
        assert report.provenance == {"seed": "3", "recipe": "x" * 1_997 + "..."}
        assert report.claimed == {"p_u": 0.5}


def test_the_gate_looks_at_trusted_onnx_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_makers.network().SerializeToString())
    score_file(tmp_path / "model.onnx", trust=True)

    def refuse(path: Path) -> None:
        raise RefusedError(f"the gate saw {path.name}")

    monkeypatch.setattr("contest.untrusted.check_file", refuse)
    with pytest.raises(RefusedError, match=r"the gate saw model\.onnx"):
        score_file(tmp_path / "model.onnx", trust=True)


@pytest.mark.parametrize("how", ["causal", "truth", "added", "none"])
def test_attention_with_its_masks(how: str) -> None:
    """What windows and decoders ask of scaled_dot_product_attention; torch's own kernel is the oracle."""
    masks = {"truth": torch.ones(4, 4).tril().bool(), "added": torch.randn(4, 4)}

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.fc = nn.Linear(4, 12), nn.Linear(16, 10)
            self.register_buffer("mask", masks.get(how))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.inner(x[:, 0]).chunk(3, -1)
            y = F.scaled_dot_product_attention(q, k, v, self.mask, is_causal=how == "causal")
            return self.fc(y.flatten(1))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model, images = Attends().eval(), torch.rand(3, 1, 4, 4)
    found = subject_of_module(model, (1, 4, 4))
    assert torch.allclose(logits_of(found.graph, images), model(images), atol=1e-5)
    costs = analyse(found.graph)
    assert not costs.unknown_operations
    assert costs.macs == 4 * 4 * 12 + 2 * 4 * 4 * 4 + 160
