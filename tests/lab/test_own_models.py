"""Models that are not image classifiers: what is prunable, what a method cannot do, and all six experiments."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from own_models import FRAMES, SOUND, TASKS, OneLogit, Sequences, Text, Tied
from torch import Tensor, nn

from contest import lab, pruning
from contest.errors import ContestError, UsageError
from contest.lab.costs import layer_macs, sizes
from contest.lab.onnx_runtime import OnnxModel, agreement, export
from contest.pruning.batches import Pairs, forward, logits

ONCE = lab.Training(epochs=1, learning_rate=0.01)
EXPERIMENTS: dict[str, Callable[[lab.Task, Path], Any]] = {
    "repeated": lambda task, out: lab.repeated(
        task, out, lab.Repeated(rounds=1, training=ONCE, variants=("none", "initial"), latency_runs=2, latency_batch=8)
    ),
    "compare": lambda task, out: lab.compare(
        [task], out, lab.Compare(("magnitude", "grasp", "synflow", "thinet"), (1, 4), 4, ONCE, ONCE, 0, 32)
    ),
    "finetune": lambda task, out: lab.finetune(task, out, lab.FineTune(0.5, training=ONCE, tuning=ONCE)),
    "sensitivity": lambda task, out: lab.sensitivity(
        task, out, lab.Sensitivity((0.0, 0.5, 0.9), training=ONCE, tuning=ONCE)
    ),
    "deploy": lambda task, out: lab.deploy(
        task, out, lab.Deploy((0.0, 0.5), (0.5,), training=ONCE, tuning=ONCE, runs=2, warmup=1)
    ),
    "quantise": lambda task, out: lab.quantise(
        task,
        out,
        lab.Quantise((0.0, 0.5), (32, 4), ("together",), training=ONCE, tuning=ONCE, latency_runs=2),
    ),
}


def runs_or_says_why(name: str, experiment: str, out: Path) -> str:
    """Empty where the experiment ran; else the sentence, which must come before anything is trained."""
    try:
        EXPERIMENTS[experiment](TASKS[name](), out)
    except ContestError as error:
        assert not list(out.glob("cells/*.json"))
        return str(error)
    assert (out / "report.html").exists()
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("name", TASKS)
def test_every_kind_of_model_in_every_experiment(name: str, experiment: str, tmp_path: Path) -> None:
    sentence = runs_or_says_why(name, experiment, tmp_path)
    assert bool(sentence) == (name == "only-recurrent")


@pytest.mark.parametrize(
    ("name", "experiment"), [("attention", "compare"), ("named", "deploy"), ("padded", "quantise")]
)
def test_some_kinds_in_some_experiments(name: str, experiment: str, tmp_path: Path) -> None:
    assert not runs_or_says_why(name, experiment, tmp_path)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "only-recurrent"])
def test_every_kind_passes_the_first_look(name: str) -> None:
    task = TASKS[name]()
    assert "% of all" in task.check()
    model = task.new(0)
    assert 0 <= task.measure(model) <= 100 and task.mean_loss(model) > 0
    found = len(logits(forward(model, task.example(40))))
    assert found == (32 if name == "padded" else 40)  # more than a batch has, where batches fit together


@pytest.mark.parametrize("name", [name for name in TASKS if name != "only-recurrent"])
@pytest.mark.parametrize("method", ["magnitude", "snip", "grasp", "synflow", "second-order", "filter-l1", "thinet"])
def test_every_method_scores_every_kind(name: str, method: str) -> None:
    task = TASKS[name]()
    model = task.new(0)
    obstacle = pruning.method(method).obstacle(model, task.scoring_batches(8), task.loss)
    if obstacle and (name, method) == ("tied", "synflow"):  # absolute weights may shut its gates: then nothing flows
        assert "the score 0" in obstacle
        return
    assert obstacle == ""
    masks = pruning.prune(
        model,
        f"{method}:rounds=3" if method == "synflow" else method,
        0.5,
        batches=task.scoring_batches(8),
        loss=task.loss,
    )
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == total - round(total / 2)


def test_a_model_without_prunable_weights_is_refused_with_the_remedy() -> None:
    task = TASKS["only-recurrent"]()
    with pytest.raises(UsageError, match=r"gru\.weight_ih_l0 \(GRU\).*--prunable"):
        task.check()
    with pytest.raises(UsageError, match="no weight that can be pruned"):
        pruning.prune(task.new(0), "magnitude", 0.5)
    named = replace(task, prunable=("gru",))
    assert named.check().startswith("80.00 % of all 60 parameters are prunable (48)")  # 6 x 6 + 6 x 2, and 12 biases


def test_what_is_left_out_is_said_with_its_share() -> None:
    text = TASKS["text"]().check()
    weights, embedding, vectors = 12 * 16 + 16 * 2, 40 * 12, 2 * 12 + 16 + 2
    every = weights + embedding + vectors
    assert text == (
        f"{100 * weights / every:.2f} % of all {every:,} parameters are prunable ({weights:,}); "
        f"left out: words.weight (Embedding, {embedding:,}), biases and norms ({vectors:,})."
    )


@pytest.mark.parametrize(
    ("prunable", "names"),
    [
        (("default", "words"), ["words.weight", "hidden.weight", "out.weight"]),
        (("hidden.weight",), ["hidden.weight"]),
        (("*.weight",), ["words.weight", "hidden.weight", "out.weight"]),  # the norm's is a vector
        ((("out", "weight"),), ["out.weight"]),
        (lambda model: [(model.hidden, "weight")], ["hidden.weight"]),
    ],
)
def test_prunable_weights_by_name_prefix_pattern_or_pair(prunable: Any, names: list[str]) -> None:
    task = replace(TASKS["text"](), prunable=prunable)
    model = task.new(0)
    assert list(pruning.prunable(model)) == names
    masks = pruning.prune(model, "magnitude", 0.5)
    assert list(masks) == names
    pruning.enforce(model, masks)
    assert pruning.sparsity(model).prunable == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("prunable", "words"), [(("wrds",), "fits no parameter; there are: words.weight"), (("norm",), "only vectors")]
)
def test_a_wrong_name_of_a_weight_is_refused(prunable: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(TASKS["text"](), prunable=prunable).new(0)


def test_a_shared_weight_is_stored_once() -> None:
    tied, untied = Tied(), Tied()
    untied.out.weight = nn.Parameter(tied.out.weight.detach().clone())
    one, two = sizes(tied), sizes(untied)
    assert two.dense_bytes - one.dense_bytes > 40 * 8 * 4
    assert two.packed_bytes - one.packed_bytes >= 40 * 8 * 4


def test_binary_classifiers_are_judged_by_the_sign(tmp_path: Path) -> None:
    """A network against its own negation: every prediction differs, but where the logit is exactly zero."""
    task = TASKS["one-logit"]()
    model = task.new(0)
    expected = (model(FRAMES[:64]).squeeze(1) > 0) == (SOUND[:64] == 1)
    assert task.measure(model) == pytest.approx(100 * expected.float().mean().item())
    negated = OneLogit()
    negated.load_state_dict(model.state_dict())
    with torch.no_grad():
        negated.out.weight.neg_()
        negated.out.bias.neg_()
    assert agreement(model, negated, task).equal_predictions == 0
    runtime = export(model, task, tmp_path / "model.onnx")
    assert agreement(model, runtime, task).equal_predictions == 1


def test_predictions_are_the_users_where_he_says_so() -> None:
    task = replace(TASKS["one-logit"](), predict=lambda outputs: (outputs[..., 0] > 1e9).long())
    assert task.measure(task.new(0)) == pytest.approx(100 * float((SOUND[:64] == 0).float().mean()))


@pytest.mark.parametrize("name", ["named", "dictionary", "two", "padded"])
def test_structures_survive_onnx(name: str, tmp_path: Path) -> None:
    task = TASKS[name]()
    model = task.new(0).eval()
    runtime = export(model, task, tmp_path / "model.onnx")
    assert isinstance(runtime, OnnxModel)
    found = agreement(model, runtime, task)
    assert found.equal_predictions == 1 and found.largest_difference < 1e-4
    assert task.measure(runtime) == task.measure(model)


def test_batches_of_any_form() -> None:
    inputs, targets = next(iter(Pairs(Sequences())))
    assert isinstance(inputs, tuple) and inputs[1].shape == (32,) and targets.shape == (32,)
    with pytest.raises(UsageError, match="must be called labels"):
        next(iter(Pairs([{"x": torch.zeros(2)}])))
    with pytest.raises(UsageError, match=r"it must be \(inputs, targets\)"):
        next(iter(Pairs([torch.zeros(2)])))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": lambda outputs, targets: outputs.sum() + "x"}, "fails in its loss on the first batch: TypeError"),
        ({"metric": lab.Metric("Own", lambda model, batches: float("x"))}, "fails in its metric 'Own'"),
        ({"train": iter([(FRAMES[:4], SOUND[:4])])}, "over after one pass"),
        ({"model": lambda: nn.Linear(3, 2)}, "fails in its forward pass"),
    ],
)
def test_what_a_task_lacks_is_said_before_training(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(TASKS["recurrent"](), **change).check()


def ctc(outputs: Tensor, targets: Tensor) -> Tensor:
    frames = torch.full((len(outputs),), outputs.shape[1])
    lengths = torch.full((len(targets),), targets.shape[1])
    return nn.functional.ctc_loss(outputs.log_softmax(2).transpose(0, 1), targets, frames, lengths)


def test_a_method_that_cannot_score_is_an_empty_column_with_its_reason(tmp_path: Path) -> None:
    """CTC has no second derivative, which GraSP needs; the others go on, and methods can be added afterwards."""
    words = torch.randint(1, 5, (96, 2))
    batches = [(FRAMES[i : i + 32], words[i : i + 32]) for i in (0, 32, 64)]
    task = lab.Task(
        "speech",
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)),
        batches,
        batches,
        loss=ctc,
        metric=lab.Metric("Outputs", lambda m, b: float(m(FRAMES).mean())),
    )
    options = lab.Compare(("magnitude", "grasp"), (4,), 4, ONCE, ONCE, 0, 32)
    results = lab.compare([task], tmp_path, options)
    table = results.tables["accuracy"]
    assert list(table["grasp"].isna()) == [True] and table["magnitude"].notna().all()
    assert any("Empty column: grasp on speech: grasp cannot score" in note for note in results.notes)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")}
    more = lab.compare([task], tmp_path, replace(options, methods=("magnitude", "grasp", "snip"), ratios=(4, 8)))
    assert more.tables["accuracy"]["snip"].notna().all()
    for name, changed in before.items():
        assert (tmp_path / "cells" / name).stat().st_mtime_ns == changed
    assert json.loads((tmp_path / "config.json").read_text())["ratios"] == [4, 8]


def test_operations_of_attention_and_recurrence_by_hand() -> None:
    task = replace(TASKS["attention"](), prunable=("encoder", "out"))
    macs = layer_macs(task.new(0), task.example(2))
    steps = 7  # (16 - 3) // 2 + 1 places after the strided convolution
    assert macs["encoder.layers.0.self_attn.in_proj_weight"] == steps * 24 * 8
    assert macs["encoder.layers.0.self_attn.out_proj.weight"] == steps * 8 * 8
    assert macs["encoder.layers.0.linear1.weight"] == steps * 16 * 8 and macs["out.weight"] == 16
    recurrent = replace(TASKS["recurrent"](), prunable=("lstm",))
    macs = layer_macs(recurrent.new(0), recurrent.example(2))
    assert macs["lstm.weight_ih_l0"] == 16 * 32 * 6 and macs["lstm.weight_hh_l0_reverse"] == 16 * 32 * 8


def test_synflow_of_text_by_hand() -> None:
    """Ones behind the embedding: R = sum |out| |hidden| (norm's weight), so a score is |out_i| |hidden_ij| |norm_j|."""
    model = Text()
    scores = pruning.method("synflow")(model, TASKS["text"]().scoring_batches(4), nn.functional.cross_entropy)
    out, hidden, norm = (w.detach().abs().double() for w in (model.out.weight, model.hidden.weight, model.norm.weight))
    assert torch.allclose(scores["hidden.weight"], out.sum(0)[:, None] * hidden * norm[None, :])
    assert list(model._forward_hooks) == [] and not model.words._forward_hooks


def test_numbers_as_targets_are_no_classes() -> None:
    """A regression under the default metric: the sign of one output would be an accuracy that means nothing."""
    inputs, targets = torch.randn(16, 4), torch.randn(16, 1)
    batches = [(inputs, targets)]
    model = lambda: nn.Linear(4, 1)  # noqa: E731
    task = lab.Task("regression", model, batches, batches, loss=nn.functional.mse_loss)
    with pytest.raises(UsageError, match=r"targets are numbers such as .* give the Task a `metric`"):
        task.check()
    error = lab.Metric("Error", lambda m, b: sum(float((m(x) - y).square().mean()) for x, y in b), False)
    assert "prunable" in replace(task, metric=error).check()
    for values in ((0.0, 1.0), (-1.0, 1.0)):  # a binary classifier's
        classes = torch.where(targets > 0, values[1], values[0])
        binary = [(inputs, classes)]
        assert 0 <= replace(task, train=binary, test=binary).measure(model()) <= 100
