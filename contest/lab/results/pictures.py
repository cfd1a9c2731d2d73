"""Pictures of a network: histograms of weights, heat maps of kernels, strips of samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contest import pruning
from contest.lab.image_task import image_task
from contest.lab.results import figures
from contest.lab.results.figures import styled
from contest.lab.task import Task
from contest.lab.training import Training, train


def histograms(
    weights: dict[str, NDArray[np.float32]], *, title: str, subtitle: str = "", bins: int = 41, columns: int = 3
) -> Any:
    """The nonzero weights of each layer; how many are zero stands in the panel's title."""
    panels = []
    for name, values in weights.items():
        nonzero = values[values != 0]
        limit = float(np.abs(nonzero).max()) if len(nonzero) else 1.0
        count, edges = np.histogram(nonzero, bins=bins, range=(-limit, limit))
        data = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "count": count, "none": 0})
        zeros = 100 * (1 - len(nonzero) / max(values.size, 1))
        head = alt.TitleParams(
            name,
            subtitle=f"{values.size:,} weights, {zeros:.1f} % zero",
            fontSize=15,
            subtitleFontSize=13,
            frame="group",
        )
        panels.append(
            alt.Chart(data)
            .mark_rect(color="#0072B2", stroke="white", strokeWidth=0.5)
            .encode(
                x=alt.X("from:Q", title="weight", axis=alt.Axis(tickCount=4)),
                x2="to:Q",
                y=alt.Y("count:Q", title="weights", axis=alt.Axis(tickCount=4, format="~s")),
                y2="none:Q",
            )
            .properties(width=260, height=150, title=head)
        )
    grid = alt.concat(*panels, columns=columns, spacing={"row": 104, "column": 74}, bounds="flush")
    return styled(grid.properties(title=alt.TitleParams(title, subtitle=subtitle, offset=18)))


def kernels(
    weight: NDArray[np.float32],
    *,
    title: str,
    subtitle: str = "",
    columns: int = 8,
    limit: int = 32,
    numbers: bool = True,
) -> Any:
    """A heat map of each kernel [out, in, h, w]: the darker, the larger the magnitude; the number is the value.

    The first `limit` kernels (output by output, input by input) are drawn and the subtitle says of how many.
    A zero is white and has no number.
    """
    outputs, inputs, height, width = weight.shape
    chosen = [(o, i) for o in range(outputs) for i in range(inputs)][:limit]
    rows = [
        {
            "panel": f"{o}←{i}" if inputs > 1 else str(o),
            "at": index,
            "row": r,
            "column": c,
            "value": float(weight[o, i, r, c]),
        }
        for index, (o, i) in enumerate(chosen)
        for r in range(height)
        for c in range(width)
    ]
    table = pd.DataFrame(rows)
    table["magnitude"] = table["value"].abs()
    table["text"] = [_short(value) for value in table["value"]]
    largest = float(table["magnitude"].max()) or 1.0
    cell = 38
    square = alt.Chart().encode(x=alt.X("column:O", axis=None), y=alt.Y("row:O", axis=None, sort="ascending"))
    shades = alt.Scale(range=["#ffffff", "#101010"], domain=[0, largest])
    colour = alt.Color("magnitude:Q", scale=shades, title="|weight|", legend=alt.Legend(gradientLength=160))
    layers = [square.mark_rect(stroke="#bbb", strokeWidth=0.5).encode(color=colour)]
    if numbers:
        layers.append(
            square.mark_text(fontSize=13).encode(
                text="text:N",
                color=alt.condition(alt.datum.magnitude > 0.45 * largest, alt.value("white"), alt.value("black")),
            )
        )
    order = list(dict.fromkeys(table["panel"]))
    every = outputs * inputs
    shown = f"{len(chosen)} of {every} kernels" if len(chosen) < every else f"all {every} kernels"
    chart = (
        alt.layer(*layers, data=table)
        .properties(width=cell * width, height=cell * height)
        .facet(
            facet=alt.Facet("panel:N", sort=order, title=None, header=alt.Header(labelFontSize=12, labelPadding=2)),
            columns=columns,
            spacing=12,
        )
    )
    return styled(
        chart.properties(title=alt.TitleParams(title, subtitle=f"{subtitle}, {shown}" if subtitle else shown))
    )


def _short(value: float) -> str:
    """Two significant digits that fit a square: without the leading zero (-.12), thousandths as -2e-3."""
    if not value:
        return ""
    if abs(value) < 0.01:
        mantissa, _, exponent = f"{value:.0e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.2g}".replace("0.", ".", 1)


def strip(
    images: NDArray[np.uint8],
    captions: Sequence[str],
    wrong: Sequence[bool],
    *,
    title: str,
    subtitle: str = "",
    side: int = 96,
) -> Any:
    """Images [N, H, W, 1 or 3] in a row with a caption under each; wrong ones are framed and marked."""
    rows = [
        {"at": index, "picture": _picture(image, side), "caption": caption, "frame": "wrong" if bad else "right"}
        for index, (image, caption, bad) in enumerate(zip(images, captions, wrong, strict=True))
    ]
    table = pd.DataFrame(rows)
    step = side + 26
    x = alt.X("at:O", axis=None, scale=alt.Scale(paddingInner=0.1))
    base = alt.Chart(table).encode(x=x)
    frame = (
        base.transform_filter("datum.frame == 'wrong'")
        .mark_square(size=(side + 10) ** 2, opacity=1, filled=False, stroke="#D55E00", strokeWidth=3, strokeDash=[6, 3])
        .encode(y=alt.value(side / 2 + 8))
    )
    picture = base.mark_image(width=side, height=side).encode(url="picture:N", y=alt.value(side / 2 + 8))
    text = base.mark_text(fontSize=14, baseline="top", lineBreak="\n").encode(text="caption:N", y=alt.value(side + 22))
    chart = alt.layer(frame, picture, text).properties(
        width=step * len(table),
        height=side + 62,
        title=alt.TitleParams(title, subtitle=subtitle) if subtitle else title,
    )
    return styled(chart)


def _picture(image: NDArray[np.uint8], side: int) -> str:
    """The image as a PNG data address, enlarged without smoothing."""
    import base64
    import io

    from PIL import Image

    pixels = image[:, :, 0] if image.shape[2] == 1 else image
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side * 2, side * 2), Image.Resampling.NEAREST).save(buffer, "png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


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
