"""A run that was interrupted ends with the same network, bit for bit."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_helpers import equal_states, network, quadrants

from contest.candidate import Recipe
from contest.errors import TrainingError
from contest.training import Epoch, History, fit

RECIPE = Recipe(epochs=4, batch_size=16, learning_rate=0.05, warmup_epochs=1)
RECIPES = {
    "sgd": RECIPE,
    "ema": replace(RECIPE, ema_decay=0.9),
    "adamw": replace(RECIPE, optimiser="adamw", learning_rate=0.003, clip_norm=1.0),
    "muon": replace(RECIPE, optimiser="muon", weight_decay=1e-3, ema_decay=0.9),
    "onecycle": replace(RECIPE, schedule="onecycle", ema_decay=0.5, label_smoothing=0.1),
    "mixing": replace(RECIPE, mixup=0.3, cutmix=1.0, cutout=8, distillation=0.5),
    "fast": replace(RECIPE, schedule="triangle", lookahead=0.9, norm_bias_rate=8.0, alternate_flips=True),
    "fraction": replace(RECIPE, epochs=3.5, schedule="constant"),
}


class StopError(Exception):
    """What a search raises to end a run."""


def stop_after(number: int) -> object:
    def hook(epoch: Epoch) -> None:
        if epoch.epoch == number:
            raise StopError

    return hook


def timeless(history: History) -> list[tuple[object, ...]]:
    return [(e.epoch, e.epochs, e.train_loss, e.train_accuracy, e.validation_accuracy) for e in history.epochs]


@pytest.mark.parametrize("name", RECIPES)
def test_resume_is_exact(name: str, tmp_path: Path) -> None:
    recipe, images = RECIPES[name], quadrants()
    soft = torch.randn(96, 4, generator=torch.Generator().manual_seed(2)) if recipe.distillation else None
    whole, path = network(dropout=0.3), tmp_path / "run.ckpt"
    history = fit(whole, images, recipe, validation=images, soft_labels=soft, seed=3)

    for stop in (1, 3):  # interrupted twice
        with pytest.raises(StopError):
            fit(
                network(dropout=0.3),
                images,
                recipe,
                validation=images,
                soft_labels=soft,
                seed=3,
                checkpoint=path,
                on_epoch=stop_after(stop),
            )
    resumed = network(dropout=0.3)
    rest: list[int] = []
    again = fit(
        resumed,
        images,
        recipe,
        validation=images,
        soft_labels=soft,
        seed=3,
        checkpoint=path,
        on_epoch=lambda epoch: rest.append(epoch.epoch),
    )
    assert rest == [4]
    assert equal_states(whole, resumed)
    assert timeless(history) == timeless(again)

    finished = network(dropout=0.3)  # a run that is done only gives back its network
    done = fit(finished, images, recipe, validation=images, soft_labels=soft, seed=3, checkpoint=path)
    assert equal_states(whole, finished) and timeless(done) == timeless(history)
    assert [path.name for path in tmp_path.iterdir()] == ["run.ckpt"]


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, {helpers!r})
from pathlib import Path
from test_resume import RECIPES, quadrants, network, fit
steps = 0
def die(model):
    global steps
    steps += 1
    if steps == 15:  # of 6 an epoch: in the middle of the third
        os.kill(os.getpid(), signal.SIGKILL)
images = quadrants()
fit(network(0.3), images, RECIPES["ema"], validation=images, seed=3, checkpoint=Path({path!r}), after_step=die)
"""


def test_a_killed_run_continues_exactly(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    code = KILLED.format(helpers=str(Path(__file__).parent), path=str(path))
    killed = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, timeout=400)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    whole, resumed = network(0.3), network(0.3)
    history = fit(whole, quadrants(), RECIPES["ema"], validation=quadrants(), seed=3)
    rest: list[int] = []
    again = fit(
        resumed,
        quadrants(),
        RECIPES["ema"],
        validation=quadrants(),
        seed=3,
        checkpoint=path,
        on_epoch=lambda epoch: rest.append(epoch.epoch),
    )
    assert rest == [3, 4], "two whole epochs were on disk"
    assert equal_states(whole, resumed) and timeless(history) == timeless(again)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    fit(network(), quadrants(), RECIPE, checkpoint=path)
    with pytest.raises(TrainingError, match=r"learning_rate: 0\.05 there, 0\.1 now"):
        fit(network(), quadrants(), replace(RECIPE, learning_rate=0.1), checkpoint=path)
    with pytest.raises(TrainingError, match="seed: 0 there, 1 now"):
        fit(network(), quadrants(), RECIPE, seed=1, checkpoint=path)
    with pytest.raises(TrainingError, match="of another network"):
        fit(network(classes=5), quadrants(), RECIPE, checkpoint=path)


def test_a_damaged_checkpoint_says_so(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    fit(network(), quadrants(), RECIPE, checkpoint=path)
    content = path.read_bytes()
    for damaged in (content[:100], content[: len(content) // 2], b"", b"nonsense"):
        path.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"run\.ckpt' is damaged .* delete it to start anew"):
            fit(network(), quadrants(), RECIPE, checkpoint=path)


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    path, sprung = tmp_path / "run.ckpt", tmp_path / "sprung"
    torch.save({"run": Trap(sprung)}, path)
    with pytest.raises(TrainingError, match="is damaged"):
        fit(network(), quadrants(), RECIPE, checkpoint=path)
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(TrainingError, match="is damaged"):
        fit(network(), quadrants(), RECIPE, checkpoint=path)
    assert not sprung.exists()
