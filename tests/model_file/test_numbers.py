"""What is left of batch norms, in integers of 4 to 8 bits: stored, trained so, and priced so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from contest import networks
from contest.candidate import Bits, Candidate, Recipe, check
from contest.errors import UsageError
from contest.model_file import freeze, save
from contest.model_file import load as load_model
from contest.model_file.freeze import Network
from contest.model_file.numbers import norms_behind, round_norms, to_codes
from contest.model_file.packing import pack, unpack
from contest.quantisation import quantise
from scoring.score import score_file

SHAPE = (3, 16, 16)
ARCHITECTURE = networks.parse("thin:widths=8-12,depths=1-1,strides=1-2")


def quantised() -> nn.Module:
    torch.manual_seed(0)
    model = networks.build(ARCHITECTURE, SHAPE, 10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 2.0)
            nn.init.normal_(module.bias)
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.1, 4.0)
    return quantise(model.eval(), Bits(4, 4), torch.rand(16, *SHAPE))


def frozen(model: nn.Module, bits: int) -> Network:
    return freeze(model, ARCHITECTURE, image_shape=SHAPE, classes=10, number_bits=bits)


def number_codes(network: Network) -> list[Tensor]:
    return [t for n, t in network.body.state_dict().items() if n.endswith(("step_codes", "bias_codes"))]


@pytest.mark.parametrize("bits", [4, 5, 6, 7, 8])
def test_a_file_of_such_numbers_is_priced_by_them_and_comes_back(bits: int, tmp_path: Path) -> None:
    network = frozen(quantised(), bits)
    codes = number_codes(network)
    assert codes and all(len(t[t != 0].unique()) <= 2**bits for t in codes)
    path = save(network, tmp_path / "model.pt")
    x = torch.rand(8, *SHAPE)
    with torch.no_grad():
        assert torch.equal(load_model(path)(x), network(x))
    pack(network, tmp_path / "model.packed")
    with torch.no_grad():
        assert torch.equal(unpack(tmp_path / "model.packed")(x), network(x))
    report = score_file(path, trust=True).to_json()
    assert report["problems"] == ["no test data: the accuracy is not known"]
    rows = [row for row in report["numbers"] if row["name"].endswith(("multiplier", "shift"))]
    rows = [row for row in rows if not row["name"].startswith("normalise")]
    folded = {row["layer"] for row in rows} - {"fc"}
    channels = sum(row["count"] for row in rows if row["layer"] in folded)
    assert channels == sum(t.numel() for t in codes)
    # bits / 32 of a parameter each, of the rule's 5.6 million (shared/spec: the parameter term).
    paid = sum(row["params"] for row in rows if row["layer"] in folded)
    assert paid == pytest.approx(channels * bits / 32 / 5.6e6)


def test_fewer_bits_are_packed_in_fewer_bytes(tmp_path: Path) -> None:
    sizes = {bits: pack(frozen(quantised(), bits), tmp_path / f"{bits}").payload_bytes for bits in (8, 4)}
    codes = number_codes(frozen(quantised(), 8))
    saved = sum(t.numel() for t in codes) / 2
    assert sizes[8] - sizes[4] == pytest.approx(saved, abs=2 * len(codes))


def test_bits_that_are_declared_too_few_are_refused(tmp_path: Path) -> None:
    path = save(frozen(quantised(), 6), tmp_path / "model.pt")
    content = torch.load(path, weights_only=True)
    manifest = json.loads(content["manifest"])
    for spec in manifest["layers"].values():
        if spec["number_bits"] == 6:
            spec["number_bits"] = 4
    content["manifest"] = json.dumps(manifest)
    torch.save(content, path)
    report = score_file(path, trust=True).to_json()
    assert not report["rankable"]
    assert any("declares 4 bits" in problem for problem in report["problems"]), report["problems"]


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_what_is_trained_is_what_is_stored(bits: int) -> None:
    model = quantised()
    stored = frozen(model, bits)
    assert round_norms(model, norms_behind(ARCHITECTURE, SHAPE, 10), bits)
    x = torch.rand(16, *SHAPE)
    again = frozen(model, bits)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(number_codes(stored), number_codes(again), strict=True))
        spread = stored(x).std()
        torch.testing.assert_close(model(x), stored(x), atol=2e-3 * float(spread), rtol=0)
        # In training mode too: its statistics are known, and are not those of the batch.
        torch.testing.assert_close(model.train()(x), stored(x), atol=2e-3 * float(spread), rtol=0)


def test_numbers_learn_and_weights_stand_still() -> None:
    model = quantised()
    round_norms(model, norms_behind(ARCHITECTURE, SHAPE, 10), 5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    weights = {name for name in before if name.endswith(("conv.weight", "conv1.weight", "fc.weight"))}
    optimiser = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1)
    x, y = torch.rand(32, *SHAPE), torch.randint(10, (32,))
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model.train()(x), y)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    moved = {name for name, p in model.named_parameters() if not torch.equal(before[name], p)}
    assert not any(name in moved for name in weights)
    assert {name for name in moved if "norm" in name} == {name for name in before if "norm" in name}


def test_epochs_of_numbers_are_said_only_where_there_are_any() -> None:
    assert "number_epochs" not in Candidate(ARCHITECTURE).to_json()
    with pytest.raises(UsageError, match="number_epochs is 3; it must lie between 0 and 2"):
        check(Recipe(epochs=2, number_epochs=3))
    for bits in (3, 9, 16):
        with pytest.raises(UsageError, match=f"numbers have {bits} bits; they must be 4 to 8 or 32"):
            Bits(4, 4, numbers=bits)


@pytest.mark.parametrize("bits", [4, 5, 6, 7, 8])
def test_codes_of_so_many_bits(bits: int) -> None:
    torch.manual_seed(bits)
    values = torch.randn(200)
    codes, scale = to_codes(values, torch.ones(200), bits)
    assert len(codes[codes != 0].unique()) <= 2**bits
    # Uniform noise of a step has a third of a quarter of its square; clipping chose the step.
    error = (codes * scale - values).square().mean()
    finer, fine = to_codes(values, torch.ones(200), 8)
    assert error >= (finer * fine - values).square().mean() * 0.99
    assert error <= (2 * values.abs().max() / 2**bits) ** 2 / 3
