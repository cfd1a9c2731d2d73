"""The training loop, evaluation and the teacher."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_helpers import equal_states, network, quadrants

from contest.candidate import Recipe
from contest.datasets import Batches, Images, load
from contest.errors import TrainingError, UsageError
from contest.training import Ensemble, Epoch, choose_device, evaluate, fit, question, soft_labels
from contest.training.device import channels_last_gradients, cpu_convolutions, has_bf16, keep_memory

PLAIN = Recipe(epochs=2, batch_size=96, flip=False, crop=0, warmup_epochs=0, learning_rate=0.05)
CPU_BF16 = has_bf16(torch.device("cpu"))


def test_fit_is_the_loop_that_anybody_would_write() -> None:
    """One batch is the whole set, so its order is the only thing random, and it does not matter to the loss."""
    images, trained = quadrants(), network()
    history = fit(trained, images, replace(PLAIN, clip_norm=0.5, label_smoothing=0.1), bf16=False)

    reference, losses = network(), []
    decay = [{"params": [reference[0].weight, reference[6].weight]}]
    rest = [{"params": [reference[1].weight, reference[1].bias, reference[6].bias], "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(decay + rest, 0.05, 0.9, nesterov=True, weight_decay=5e-4)
    for rate in (0.05, 0.025):  # half a cosine in two steps
        optimiser.param_groups[0]["lr"] = optimiser.param_groups[1]["lr"] = rate
        optimiser.zero_grad()
        loss = F.cross_entropy(reference(images.pixels / 255), images.labels, label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        optimiser.step()
        losses.append(loss.item())
    assert [epoch.train_loss for epoch in history.epochs] == pytest.approx(losses, rel=1e-4)
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=6, batch_size=16, learning_rate=0.05, crop=0),
        Recipe(epochs=6, batch_size=16, learning_rate=0.05, crop=0, ema_decay=0.95, schedule="onecycle"),
        Recipe(epochs=6, batch_size=16, learning_rate=0.01, crop=0, optimiser="adamw", mixup=0.2),
    ],
    ids=["sgd", "ema", "adamw"],
)
def test_it_learns(recipe: Recipe) -> None:
    model, images = network(), quadrants()
    seen: list[Epoch] = []
    history = fit(model, images, recipe, validation=images, on_epoch=seen.append)
    assert history.validation_accuracy is not None and history.validation_accuracy > 0.97
    assert tuple(seen) == history.epochs and [epoch.epoch for epoch in seen] == [1, 2, 3, 4, 5, 6]
    assert evaluate(model, images).accuracy == history.validation_accuracy, "what was read is what was left"
    assert not model.training and seen[0].images_per_second > 0


def test_digits_are_learned_in_seconds() -> None:
    digits = load("digits")
    assert digits.test is not None
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    fit(model, digits.train, Recipe(epochs=8, batch_size=64, learning_rate=0.05))
    assert evaluate(model, digits.test).accuracy > 0.97


@pytest.mark.parametrize(
    ("epochs", "steps", "rounds"), [(0, 0, 0), (0.01, 1, 1), (0.5, 3, 1), (2, 12, 2), (2.5, 15, 3)]
)
def test_fractions_of_epochs(epochs: float, steps: int, rounds: int) -> None:
    model, taken = network(), []
    before = copy.deepcopy(model)
    recipe = Recipe(epochs=epochs, batch_size=16)
    history = fit(model, quadrants(), recipe, after_step=lambda _: taken.append(1))
    assert len(taken) == steps and len(history.epochs) == rounds
    assert equal_states(model, before) == (epochs == 0)


def test_masks_hold_through_training_and_averaging() -> None:
    model = network()
    zeros = torch.rand_like(model[6].weight) < 0.5

    def hold(model: nn.Module) -> None:
        model[6].weight.data.masked_fill_(zeros, 0.0)

    fit(model, quadrants(), Recipe(epochs=2, batch_size=16, ema_decay=0.99), after_step=hold)
    assert torch.equal(model[6].weight == 0, zeros)


@pytest.mark.parametrize("validation", [True, False])
def test_a_loss_that_is_not_finite_ends_the_run(validation: bool, tmp_path: Path) -> None:
    images, path = quadrants(), tmp_path / "run.ckpt"
    recipe = Recipe(epochs=3, batch_size=16, learning_rate=1e30, warmup_epochs=0, schedule="constant")
    with pytest.raises(TrainingError, match=r"epoch 1 .*learning rate 1e\+30.*lower learning_rate.*clip_norm"):
        fit(network(), images, recipe, validation=images if validation else None, checkpoint=path)
    assert not path.exists(), "a run that failed leaves no checkpoint that fails again"


def test_too_little_memory_says_what_to_lower() -> None:
    class Huge(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.empty(1 << 50)

    with pytest.raises(TrainingError, match="not enough memory for a step of batch_size 8"):
        fit(Huge(2, 2), quadrants(), Recipe(batch_size=8))


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(3, 4)), quadrants(), Recipe(batch_size=8))


def test_distillation_needs_a_teacher() -> None:
    with pytest.raises(UsageError, match=r"distillation is 0\.5 but there are no soft labels"):
        fit(network(), quadrants(), Recipe(distillation=0.5))


def test_a_student_learns_from_soft_labels_alone() -> None:
    """The labels are wrong, the teacher is right, and distillation = 1 listens to the teacher only."""
    images = quadrants()
    right = F.one_hot(images.labels, 4) * 10.0
    wrong = Images(images.pixels, (images.labels + 1) % 4, flips=False)
    student = network()
    fit(student, wrong, Recipe(epochs=6, batch_size=16, crop=0, distillation=1.0), soft_labels=right)
    assert evaluate(student, images).accuracy > 0.97


def test_seeds_decide_and_the_callers_random_numbers_stay() -> None:
    recipe, models = Recipe(epochs=1, batch_size=16), [network(dropout=0.5) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        torch.manual_seed(torch.seed())
        before = torch.get_rng_state()
        fit(model, quadrants(), recipe, seed=seed)
        assert torch.equal(before, torch.get_rng_state())
    assert equal_states(models[0], models[1]) and not equal_states(models[0], models[2])


@pytest.mark.skipif(not CPU_BF16, reason="this processor has no bf16 arithmetic")
def test_bf16_is_used_and_comes_close() -> None:
    kinds: set[torch.dtype] = set()
    exact, fast = network(), network()
    fast[0].register_forward_hook(lambda _module, _inputs, output: kinds.add(output.dtype))
    a = fit(exact, quadrants(), PLAIN, bf16=False).epochs[-1].train_loss
    b = fit(fast, quadrants(), PLAIN).epochs[-1].train_loss
    assert kinds == {torch.bfloat16} and a != b and a == pytest.approx(b, rel=0.02)
    kinds.clear()
    evaluate(fast, quadrants())
    assert kinds == {torch.float32}


def test_progress_shows_what_matters(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contest.training.evaluation.SECONDS", 0.0)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    fit(network(), quadrants(), Recipe(epochs=2, batch_size=16), progress=True)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().out)
    assert re.search(r"100%\s+loss \d+\.\d+  accuracy [\d.]+%  [\d,]+ images/s\s+\d:\d\d:\d\d", shown)
    fit(network(), quadrants(), Recipe(epochs=1, batch_size=16))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_evaluate_counts_and_leaves_no_trace(batch_size: int) -> None:
    model, images = network(dropout=0.5), quadrants()
    model.train()
    model[1].eval()  # a frozen batch norm stays frozen
    model(images.pixels / 255)
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    result = evaluate(model, images, batch_size=batch_size)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        logits = copy.deepcopy(model).eval()(images.pixels / 255)
    assert torch.equal(result.predictions, logits.argmax(1))
    correct = sum(int(logits[i].argmax()) == int(images.labels[i]) for i in range(96))
    assert (result.correct, result.total, result.accuracy) == (correct, 96, correct / 96)
    assert result.loss == pytest.approx(F.cross_entropy(logits, images.labels).item(), rel=1e-5)
    with pytest.raises(UsageError, match="no images"):
        evaluate(model, images.take(torch.arange(0)))


def test_gradients_stay_in_channels_last_memory() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model.to(memory_format=torch.channels_last)
    x = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    gradients: dict[bool, Tensor] = {}

    def note(_: nn.Module, __: object, out: Tensor) -> None:
        out.register_hook(lambda gradient: gradients.update({relayed: gradient}))

    model[0].register_forward_hook(note)
    for relayed in (False, True):
        with channels_last_gradients(model) if relayed else nullcontext():
            model(x).sum().backward()
    assert gradients[True].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(gradients[True], gradients[False])


@pytest.mark.parametrize(("kernel", "stride", "wide"), [(3, 2, True), (5, 1, True), (3, 1, False)])
def test_depthwise_layers_that_are_slow_in_bf16_are_computed_in_float32(kernel: int, stride: int, wide: bool) -> None:
    layer, middle = nn.Conv2d(4, 4, kernel, stride, kernel // 2, groups=4, bias=False), kernel // 2
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[..., middle, middle], layer.weight[..., middle, middle + 1] = 1 + 2**-10, -1
    model = nn.Sequential(layer)
    with cpu_convolutions(model), torch.autocast("cpu", torch.bfloat16):
        out = model(torch.ones(2, 4, 8, 8).bfloat16())
    assert out.dtype is torch.bfloat16
    assert out[0, 0, 1, 1].item() == (2**-10 if wide else 0), "bf16 has 8 places: there 1 + 2**-10 is 1"
    out.sum().backward()
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad[:, 0, middle, middle], torch.full((4,), 2.0 * out[0, 0].numel()))
    assert "_conv_forward" not in vars(layer)


def test_soft_labels_are_the_mean_over_views() -> None:
    teacher, images = network().eval(), quadrants()
    x = images.pixels / 255
    padded = F.pad(x, (1, 1, 1, 1), "reflect")
    up_left, down_right = padded[:, :, :8, :8], padded[:, :, 2:, 2:]
    assert torch.equal(down_right[:, :, :7, :7], x[:, :, 1:, 1:])
    with torch.no_grad():
        plain, mirrored = teacher(x), teacher(x.flip(3))
        moved = [teacher(y) for y in (up_left, down_right, up_left.flip(3), down_right.flip(3))]
    close = {"rtol": 0.05, "atol": 0.02}  # the teacher runs in bf16 where that is faster
    may_flip = Images(images.pixels, images.labels, flips=True)
    torch.testing.assert_close(soft_labels(teacher, may_flip, views=1), plain, **close)
    torch.testing.assert_close(soft_labels(teacher, may_flip, views=2), (plain + mirrored) / 2, **close)
    six = (plain + mirrored) / 4 + sum(moved) / 8
    torch.testing.assert_close(soft_labels(teacher, may_flip, views=6), six, **close)
    still = plain / 2 + (moved[0] + moved[1]) / 4
    torch.testing.assert_close(soft_labels(teacher, images, views=6), still, **close)
    assert torch.equal(soft_labels(teacher, images), soft_labels(teacher, images, views=1)), "may not be mirrored"
    assert torch.equal(soft_labels(teacher, may_flip), soft_labels(teacher, may_flip, views=2))
    with pytest.raises(UsageError, match="views are 3; they must be 1, 2, 6"):
        soft_labels(teacher, images, views=3)


def test_several_teachers_are_the_mean_of_their_logits() -> None:
    first, second, images = network().eval(), network().eval(), quadrants()
    with torch.no_grad():
        second[6].bias.add_(3)
        x = images.pixels / 255
        torch.testing.assert_close(Ensemble([first, second])(x), (first(x) + second(x)) / 2)


def test_soft_labels_are_computed_once_for_each_question(tmp_path: Path) -> None:
    teacher, images, cache = network(), quadrants(), tmp_path / "deep" / "answers"
    calls: list[int] = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    first = soft_labels(teacher, images, cache=cache)
    assert torch.equal(soft_labels(teacher, images, cache=cache), first) and len(calls) == 1
    soft_labels(teacher, images, cache=cache, views=6)
    assert len(calls) == 4, "another question"
    with torch.no_grad():
        teacher[6].bias.add_(1)
    second = soft_labels(teacher, images, cache=cache)
    assert len(calls) == 5 and not torch.equal(first, second), "another teacher"
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:50])
    assert torch.equal(soft_labels(teacher, images, cache=cache), second) and len(calls) == 6, "damaged"
    fewer = images.take(torch.arange(40))
    assert len(soft_labels(teacher, fewer, cache=cache)) == 40, "other images"
    with torch.no_grad():
        teacher[6].bias.sub_(1)
    assert torch.allclose(soft_labels(teacher, images, cache=cache), first, atol=1e-5), "the first one's are kept"


OTHER = {"optimiser": "adamw", "schedule": "constant", "flip": False, "branches": True, "crop": 4, "cutout": 16}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Recipe)])
def test_a_field_that_changes_the_images_is_part_of_the_question(field: str) -> None:
    """Tried out, field by field: a new one that changes the images cannot be forgotten."""
    recipe = Recipe(batch_size=32, taught_epochs=2, crop=8)
    value: Any = getattr(recipe, field)
    other = replace(recipe, **{field: OTHER[field] if field in OTHER else value + 1})
    images = replace(quadrants(), flips=True)
    one, two = (torch.cat([b.images for b in Batches(images, r).epoch(0)]) for r in (recipe, other))
    same = one.shape == two.shape and torch.equal(one, two) and field != "taught_epochs"
    assert same == (question(recipe) == question(other))
    plain = [replace(r, taught_epochs=0) for r in (recipe, other)]
    assert question(plain[0]) == question(plain[1]), "plain images are the same for every recipe"


def test_devices() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device().type == expected and choose_device("cpu") == torch.device("cpu")
    for missing in ("cuda:99", "abacus"):
        with pytest.raises(UsageError, match=f"device '{missing}' is not available"):
            choose_device(missing)


def test_malloc_can_be_told_to_keep_memory_where_it_is_glibcs() -> None:
    import platform

    assert keep_memory() == (platform.libc_ver()[0] == "glibc")


SHORTCUT = """
import torch
from torch import nn
from contest.candidate import Bits, Recipe
from contest.datasets import Images
from contest.training import fit
from contest.quantisation import quantise

torch.set_num_threads(1)
torch.manual_seed(0)
images = Images(torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8), torch.randint(0, 2, (64,)))
for bits in (32, 4):
    shortcut = nn.Conv2d(4, 8, 1, 2, bias=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), shortcut, nn.Flatten(), nn.Linear(128, 2))
    if bits < 32:
        quantise(model, Bits(bits, bits), torch.rand(8, 3, 8, 8))
    fit(model, images, Recipe(epochs=8, batch_size=8, learning_rate=0.01), bf16=False)
"""


def test_a_strided_shortcut_of_few_channels_does_not_end_the_process() -> None:
    """Its backward pass in oneDNN on AVX2 writes behind the gradient: the heap is corrupted, the process aborts."""
    narrow = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    code = [sys.executable, "-c", SHORTCUT]
    ended = subprocess.run(code, env=os.environ | narrow, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("stride", [2, 3, (1, 2)])
def test_a_strided_pointwise_convolution_is_the_same_sum(groups: int, stride: int | tuple[int, int]) -> None:
    model = nn.Sequential(nn.Conv2d(6, 12, 1, stride, groups=groups).double())
    x = torch.rand(2, 6, 9, 8, dtype=torch.float64)
    plain = model(x)
    with cpu_convolutions(model):
        torch.testing.assert_close(model(x), plain)


def test_a_pipe_gets_a_line_a_minute_with_figures_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a picture of a bar that stands at 0 % until the end. Each reading of this clock is 25 s later."""
    clock = itertools.count(0.0, 25.0)
    monkeypatch.setattr("contest.training.evaluation.time.perf_counter", lambda: next(clock))
    fit(network(), quadrants(), replace(PLAIN, batch_size=24), progress=True, bf16=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(
        re.fullmatch(r"training: \d+%, loss [\d.]+, accuracy [\d.]+%, [\d,]+ images/s, [\d:]+ left", line)
        for line in lines
    )
    assert lines[-1].startswith("training: 100%") and "0:00:00 left" in lines[-1]
    recipe = Recipe(batch_size=24, distillation=1.0, taught_epochs=2, flip=False, crop=0)
    soft_labels(network(), quadrants(), recipe=recipe, progress=True)
    assert re.match(r"the teacher answers: \d+%, [\d:]+ left", capsys.readouterr().out)
