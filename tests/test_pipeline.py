"""candidate -> network, on the bundled digits: the order of compression, exact zeros, exact resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from contest import networks
from contest.candidate import Bits, Candidate, Recipe
from contest.cli import cli
from contest.commands import changed, tuning
from contest.datasets import Split, load, split
from contest.errors import TrainingError, UsageError
from contest.model_file import Network, read_manifest
from contest.pipeline import Outcome, compress
from contest.training import Epoch, evaluate, start_from

SHORT = Recipe(epochs=2, batch_size=64, learning_rate=0.1, warmup_epochs=0, crop=1)
CANDIDATE = Candidate(
    networks.parse("thin:widths=8-12,depths=1-1,strides=1-2"),
    Bits(4, 4),
    structured=0.2,
    unstructured=0.3,
    train=SHORT,
    tune=replace(SHORT, epochs=4, learning_rate=0.05, ema_decay=0.9),
)


@pytest.fixture(scope="module")
def digits() -> Split:
    return split(load("digits").train)


def run(candidate: Candidate, digits: Split, directory: Path | None = None, **options: object) -> Outcome:
    return compress(
        candidate,
        digits.train,
        digits.validation,
        image_shape=digits.train.shape,
        classes=10,
        directory=directory,
        **options,  # type: ignore[arg-type]
    )


def codes(network: Network) -> dict[str, torch.Tensor]:
    return {n: t for n, t in network.body.state_dict().items() if n.endswith(".codes")}


@pytest.fixture(scope="module")
def verdict(digits: Split) -> Outcome:
    return run(CANDIDATE, digits)


def test_the_stages_come_in_order(verdict: Outcome) -> None:
    assert [stage.name for stage in verdict.stages] == ["train", "channels", "tune"]
    assert verdict.validation is not None and verdict.validation.accuracy > 0.3


def test_channels_are_gone_and_zeros_are_there(verdict: Outcome) -> None:
    manifest = verdict.network.manifest
    assert manifest.parent is not None
    weights = sum(t.numel() for t in codes(verdict.network).values())
    zeros = sum(int((t == 0).sum()) for t in codes(verdict.network).values())
    assert weights == pytest.approx(0.8 * manifest.parent.weights, rel=0.1)
    # p_u counts weights of the unpruned network; codes that round to zero come on top
    assert zeros >= round(0.3 * manifest.parent.weights)
    assert manifest.claims.p_s == pytest.approx(1 - weights / manifest.parent.weights)
    assert manifest.claims.p_u == pytest.approx(zeros / manifest.parent.weights)


def test_the_file_says_how_it_was_made(verdict: Outcome) -> None:
    assert Candidate.from_json(verdict.network.manifest.provenance["candidate"]) == CANDIDATE


def test_same_seed_same_network(verdict: Outcome, digits: Split) -> None:
    again = run(CANDIDATE, digits)
    for name, tensor in verdict.network.body.state_dict().items():
        assert torch.equal(again.network.body.state_dict()[name], tensor), name


@pytest.mark.parametrize("stop_after", [1, 3, 5, 7])
def test_interrupted_anywhere_the_network_is_the_same(
    stop_after: int, verdict: Outcome, digits: Split, tmp_path: Path
) -> None:
    seen: list[Epoch] = []

    def stop(epoch: Epoch) -> None:
        seen.append(epoch)
        if len(seen) == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(CANDIDATE, digits, tmp_path, on_epoch=stop)
    resumed = run(CANDIDATE, digits, tmp_path)
    for name, tensor in verdict.network.body.state_dict().items():
        assert torch.equal(resumed.network.body.state_dict()[name], tensor), name


@pytest.mark.parametrize("family", ["thin", "preact"])
def test_the_last_epochs_of_a_tuning_are_of_the_numbers(family: str, digits: Split, tmp_path: Path) -> None:
    candidate = Candidate(
        networks.parse(f"{family}:widths=8-12,depths=1-1,strides=1-2"),
        Bits(4, 4, numbers=5),
        unstructured=0.3,
        train=replace(SHORT, epochs=1),
        tune=replace(SHORT, epochs=2.5, number_epochs=0.5),
    )
    whole = run(candidate, digits, tmp_path / "whole")
    assert [(stage.name, stage.epochs) for stage in whole.stages] == [("train", 1), ("tune", 2), ("numbers", 0.5)]
    layers = whole.network.manifest.layers.values()
    # Before activation only one of two batch norms lies behind a convolution that nothing else reads.
    assert {spec.number_bits for spec in layers if spec.kind == "conv"} == ({5} if family == "thin" else {5, 32})
    assert whole.validation is not None
    assert whole.validation.accuracy == evaluate(whole.network, digits.validation).accuracy
    seen: list[Epoch] = []

    def stop(epoch: Epoch) -> None:
        seen.append(epoch)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(candidate, digits, tmp_path / "resumed", on_epoch=stop)
    resumed = run(candidate, digits, tmp_path / "resumed")
    for name, tensor in whole.network.body.state_dict().items():
        assert torch.equal(resumed.network.body.state_dict()[name], tensor), name
    with pytest.raises(UsageError, match=r"tune\.ckpt beside it"):
        start_from(tmp_path / "whole" / "numbers.ckpt", networks.build(candidate.architecture, digits.train.shape, 10))


def test_numbers_of_few_bits_are_trained_unless_it_is_said_that_they_are_not() -> None:
    base = Recipe(epochs=3.0, learning_rate=0.01)
    assert tuning("", base, 8) == base
    assert tuning("", base, 6).number_epochs == pytest.approx(0.3)
    assert tuning("epochs=20", base, 6).number_epochs == 0.5
    assert tuning("number_epochs=0", base, 6).number_epochs == 0
    assert tuning("", replace(base, number_epochs=1.0), 6).number_epochs == 1
    # A candidate of a file is changed in the same way, and left alone where nothing is said of its numbers.
    saved = replace(CANDIDATE, bits=Bits(4, 4, numbers=8))
    assert changed(saved, {"number_bits": "6"}).tune.number_epochs == pytest.approx(0.4)
    assert changed(saved, {"seed": 1}).tune == saved.tune


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_binary_weights_keep_their_masks(epochs: int, digits: Split) -> None:
    """The exact number of zeros: a binary quantiser makes none of its own."""
    tune = replace(CANDIDATE.tune, epochs=epochs)
    candidate = replace(CANDIDATE, bits=Bits(1, 8), structured=0.0, unstructured=0.5, tune=tune)
    network = run(candidate, digits).network
    total = sum(t.numel() for t in codes(network).values())
    assert sum(int((t == 0).sum()) for t in codes(network).values()) == round(0.5 * total)
    assert all(set(t.unique().tolist()) <= {-1, 0, 1} for t in codes(network).values())


def test_float_and_half_networks_need_no_quantiser(digits: Split) -> None:
    half = run(replace(CANDIDATE, bits=Bits(16, 16), structured=0.0), digits).network
    weights = {n: t for n, t in half.body.state_dict().items() if n.endswith(".weight")}
    assert weights and all(t.dtype == torch.float16 for t in weights.values())
    assert sum(int((t == 0).sum()) for t in weights.values()) == round(0.3 * sum(t.numel() for t in weights.values()))


@pytest.mark.parametrize("bits", [Bits(16, 16), Bits(1, 8)])
def test_each_layer_has_the_zeros_of_its_own_ratio(bits: Bits, digits: Split) -> None:
    """As the sensitivity experiment suggests them; a layer without a ratio stays whole."""
    ratios = (("stages.0.0.body.conv1.weight", 0.25), ("fc.weight", 0.5))
    tune = replace(SHORT, epochs=2)
    network = run(replace(CANDIDATE, bits=bits, structured=0.0, unstructured=0.0, ratios=ratios, tune=tune), digits)
    asked = {name.removesuffix(".weight"): ratio for name, ratio in ratios}
    seen = set()
    for name, tensor in network.network.body.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if tensor.dim() > 1 and kind in ("weight", "codes"):
            assert int((tensor == 0).sum()) == round(asked.get(layer, 0.0) * tensor.numel()), name
            seen.add(layer)
    assert seen > set(asked)


def test_a_ratio_of_no_layer_is_named_before_anything_is_trained(digits: Split, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no prunable weight is called conv9\.weight; there are: stem"):
        run(replace(CANDIDATE, unstructured=0.0, ratios=(("conv9.weight", 0.5),)), digits, tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_weight_would_be_left(digits: Split) -> None:
    candidate = replace(CANDIDATE, structured=0.0, unstructured=0.99999)
    with pytest.raises(TrainingError, match="structured pruning left"):
        run(candidate, digits)


def test_a_missing_teacher_is_named_before_anything_is_trained(digits: Split, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tune recipe has distillation = 0\.5.*--teacher"):
        run(replace(CANDIDATE, tune=replace(SHORT, distillation=0.5)), digits, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_shallower_network_starts_from_its_deeper_relative(digits: Split, tmp_path: Path) -> None:
    still = replace(SHORT, learning_rate=1e-12, weight_decay=0.0)  # what it starts with is what it ends with
    deep = Candidate(networks.parse("thin:widths=8-12,depths=1-2,strides=1-2"), Bits(), train=SHORT)
    run(deep, digits, tmp_path)
    trained = torch.load(tmp_path / "train.ckpt", weights_only=True)["parts"]["model"]
    shallow = replace(deep, architecture=networks.parse("thin:widths=8-12,depths=1-1,strides=1-2"), train=still)
    begun = run(shallow, digits, tmp_path / "start", start=tmp_path / "train.ckpt")
    kept = torch.load(tmp_path / "start" / "train.ckpt", weights_only=True)["parts"]["model"]
    weights = [name for name in kept if name.endswith(".weight") and kept[name].dim() == 4]
    assert len(weights) == 6 and all(torch.allclose(kept[name], trained[name], atol=1e-6) for name in weights)
    assert begun.network.manifest.architecture.options["depths"] == (1, 1)

    stranger = replace(shallow, architecture=networks.parse("mnist_fc"))
    with pytest.raises(UsageError, match="shares no layer"):
        run(stranger, digits, start=tmp_path / "train.ckpt")
    (tmp_path / "bad.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(UsageError, match="no checkpoint"):
        run(shallow, digits, start=tmp_path / "bad.ckpt")


def test_a_wide_tail_is_trained_with_the_last_1x1_that_the_network_does_without(digits: Split, tmp_path: Path) -> None:
    """So the two float networks end alike, but for rounding; and an interrupted training goes on."""
    options = "thin:block=inverted,widths=8-12,depths=1-2,strides=1-2"
    whole, short = (
        Candidate(networks.parse(options + tail), Bits(), train=replace(SHORT, ema_decay=0.9))
        for tail in ("", ",tail=wide")
    )
    expected = run(whole, digits, tmp_path / "whole").network

    def stop(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(short, digits, tmp_path / "short", on_epoch=stop)
    found = run(short, digits, tmp_path / "short").network
    images = digits.train.pixels[:100].float() / 255
    torch.testing.assert_close(found(images), expected(images), rtol=1e-3, atol=1e-3)
    down = "stages.1.1.body.project.conv.weight"
    assert down in torch.load(tmp_path / "short" / "train.ckpt", weights_only=True)["parts"]["model"]
    assert not any(name.startswith(down.removesuffix("conv.weight")) for name in found.body.state_dict())
    begun = run(replace(short, train=replace(SHORT, epochs=0)), digits, start=tmp_path / "short" / "train.ckpt")
    torch.testing.assert_close(begun.network(images), found(images), rtol=0.1, atol=0.1)
    compressed = run(replace(short, bits=Bits(4, 4, numbers=8), unstructured=0.3, tune=SHORT), digits).network
    assert compressed.manifest.architecture.options["tail"] == "wide"


def test_a_network_of_fewer_bits_starts_from_the_one_before(digits: Split, tmp_path: Path) -> None:
    four = replace(CANDIDATE, structured=0.0, tune=replace(SHORT, epochs=4, learning_rate=0.05))
    before = run(four, digits, tmp_path)
    still = replace(SHORT, epochs=1, learning_rate=1e-12, weight_decay=0.0)  # what it starts with it ends with
    again = replace(four, train=replace(SHORT, epochs=0), tune=still)
    after = run(again, digits, start=tmp_path / "tune.ckpt")
    old, new = codes(before.network), codes(after.network)
    assert before.validation is not None and after.validation is not None
    agree = before.validation.predictions == after.validation.predictions
    assert agree.float().mean() > 0.8, "not all: the steps are chosen anew"
    assert all(bool((new[name] == 0)[old[name] == 0].all()) for name in old), "zeros stay zeros"
    assert run(replace(again, bits=Bits(3, 4)), digits, start=tmp_path / "tune.ckpt").validation is not None

    # A filter that rounds to nothing starts as nothing, however small the variance that it left behind.
    state = torch.load(tmp_path / "tune.ckpt", weights_only=True)
    model = state["parts"]["model"]
    step = model["stages.0.0.body.conv1.weight_quant.tensor_quant.step"]
    model["stages.0.0.body.norm1.running_var"][0] = 1e-10
    ended = []
    for share in (0.0, 0.4):
        model["stages.0.0.body.conv1.weight"][0] = share * step[0]
        torch.save(state, tmp_path / "dead.ckpt")
        ended.append(codes(run(again, digits, start=tmp_path / "dead.ckpt").network))
    assert all(torch.equal(ended[0][name], ended[1][name]) for name in ended[0])


def test_an_unknown_pruning_method_is_refused_before_anything_is_trained(digits: Split) -> None:
    seen: list[Epoch] = []
    with pytest.raises(UsageError, match="did you mean 'synflow'"):
        run(replace(CANDIDATE, pruning="synfow"), digits, on_epoch=seen.append)
    assert not seen


def test_each_option_of_the_command_reaches_the_network(tmp_path: Path) -> None:
    out = tmp_path / "model.pt"
    arguments = [
        "thin:widths=4,depths=1",
        "--dataset",
        "digits",
        "--bits",
        "4",
        "--structured",
        "0.2",
        "--channels",
        "bn",
    ]
    arguments += ["--unstructured", "0.3", "--pruning", "random", "--train", "epochs=0.2", "--tune", "epochs=0.2"]
    done = CliRunner().invoke(cli, ["train", *arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    made = Candidate.from_json(read_manifest(out).provenance["candidate"])
    assert (made.pruning, made.channels, made.structured, made.unstructured) == ("random", "bn", 0.2, 0.3)
