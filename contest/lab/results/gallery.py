"""The pictures of the methods' pages: the same small network, pruned by each method to the same sparsity."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import torch
from torch import Tensor, nn

from contest import pruning
from contest.lab.image_task import image_task
from contest.lab.results import figures
from contest.lab.task import Task
from contest.lab.training import Training, train

MODEL, DATASET, LAYER = "mnist_cnn:widths=8-16,hidden=32", "digits", "conv2.weight"
SPARSITY = 0.8
TRAINING = Training(epochs=6, learning_rate=0.003)
ROUNDS = 4
IMP = "imp"


def gallery(folder: Path) -> list[Path]:
    """Draw `folder/<method>.svg` for every built-in method and for iterative magnitude pruning."""
    task = image_task(MODEL, DATASET, batch_size=32)
    fresh, trained = task.new(0), task.new(0)
    train(trained, task.train, task.loss, TRAINING, seed=0)
    samples = task.scoring_batches(256)
    paths = []
    for name, found in pruning.methods().items():
        model = fresh if found.when == "before" else trained
        masks = pruning.prune(model, name, SPARSITY, batches=samples, loss=task.loss)
        paths.append(_draw(folder, name, masks))
    paths.append(_draw(folder, IMP, _iterative(task)))
    return paths


def _iterative(task: Task) -> pruning.Masks:
    def training(model: nn.Module, after_step: Any) -> None:
        train(model, task.train, task.loss, TRAINING, seed=0, after_step=after_step)

    fraction = 1 - (1 - SPARSITY) ** (1 / ROUNDS)
    *_, last = pruning.iterative(task.new(0), training, fraction=fraction, rounds=ROUNDS)
    return last.masks


def _draw(folder: Path, name: str, masks: pruning.Masks) -> Path:
    weight = masks[LAYER]
    outputs, inputs, height, width = weight.shape
    each = pd.DataFrame(
        {"Layer": layer.removesuffix(".weight"), "Sparsity (%)": 100 * (1 - float(mask.float().mean()))}
        for layer, mask in masks.items()
    )
    bars = (
        alt.Chart(each, title="Sparsity of each layer (%)")
        .mark_bar(color="#0072B2")
        .encode(
            x=alt.X("Sparsity (%):Q", scale=alt.Scale(domain=[0, 100]), title=None),
            y=alt.Y("Layer:N", sort=None, title=None),
        )
        .properties(width=220, height=150)
    )
    head = (
        f"Weights of {LAYER.removesuffix('.weight')} that live: {outputs} filters, {inputs} x {height} x {width} each"
    )
    live = (
        alt.Chart(_runs(weight.flatten(1)), title=head)
        .mark_rect(color="#1b1b1b")
        .encode(
            x=alt.X(
                "from:Q",
                scale=alt.Scale(domain=[0, inputs * height * width], nice=False),
                title="input channel",
                axis=alt.Axis(values=[height * width * i for i in range(inputs + 1)], labels=False, ticks=False),
            ),
            x2="to:Q",
            y=alt.Y(
                "top:Q",
                scale=alt.Scale(domain=[outputs, 0], nice=False),
                title="filter",
                axis=alt.Axis(labels=False, ticks=False, grid=False),
            ),
            y2="bottom:Q",
        )
        .properties(width=560, height=220)
    )
    title = alt.TitleParams(
        f"{name}: {SPARSITY:.0%} of all weights pruned", subtitle=f"{MODEL} on {DATASET}", offset=12
    )
    chart = figures.styled(alt.hconcat(live, bars, spacing=40).properties(title=title))
    path = folder / f"{name}.svg"
    folder.mkdir(parents=True, exist_ok=True)
    chart.save(str(path))
    return path


def _runs(mask: Tensor) -> pd.DataFrame:
    """Runs of living weights in each row as rectangles: a tenth of the marks that one for each weight would be."""
    rows = []
    for top, row in enumerate(mask.int()):
        edges = torch.diff(row, prepend=row.new_zeros(1), append=row.new_zeros(1)).nonzero().flatten().tolist()
        rows += [
            {"from": start, "to": end, "top": top + 0.1, "bottom": top + 0.9}
            for start, end in list(pairwise(edges))[::2]
        ]
    return pd.DataFrame(rows)
