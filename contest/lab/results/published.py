"""Results of this machine beside published figures: the shape must agree, not the digits.

`write` makes the page `docs/lab-results.md` from results folders; an unfinished folder says how far it is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from contest import pruning
from contest.errors import UsageError
from contest.files import write_lines
from contest.lab.results.tables import markdown

TEXT_SPARSITY = (32.98, 55.08, 69.89, 79.81, 86.45, 90.90, 93.89, 95.89, 97.23, 98.12)
"""Whole-model sparsity (%) of the published text net after each round of 33 %."""
MNIST_SPARSITY = {1: 32.96, 10: 98.07}
"""The same of the MNIST net: first and last round."""
TEXT_ACCURACY = {
    "dense": 81.77,
    "none at 80 %": 81.65,
    "none at 94 %": 69.61,
    "none at 97 %": 49.08,
    "rewound at 98 %": 77.87,
}
CNN = {"dense": (98.98, 4.58), "pruned": (19.11, 0.46), "tuned": (98.42, 0.46)}
"""(accuracy in percent, MiB of nonzero weights) of the MNIST CNN, each tensor 90 % sparse."""
EQUAL_PERCENT, ACCURACY_POINTS = 99.9, 0.1
"""What a QCDQ network in ONNX Runtime must reach: equal predictions, and the difference of accuracy."""
COO_PERCENT = 80
"""Until about this sparsity a COO file is larger than the dense one."""
NOTE = "note.md"
"""A file in a results folder: what is to be said beside its results, such as how long they took."""
RECOVERY_POINTS = 1.0
COLLAPSE_PERCENT = 50.0
"""A network below this has collapsed: half of what it could."""


class Folder:
    """A results folder as it lies there, finished or not."""

    def __init__(self, path: Path) -> None:
        if not (path / "config.json").is_file():
            raise UsageError(f"{path} is no results folder of `contest lab`: it has no config.json")
        self.path = path
        self.config: dict[str, Any] = json.loads((path / "config.json").read_text())
        if "seeds" in self.config:
            raise UsageError(f"{path} holds the mean of several seeds; give one of the folders {path}/seed-*")
        self.machine: dict[str, str] = json.loads((path / "machine.json").read_text())
        self.cells = {p.stem: json.loads(p.read_text()) for p in sorted((path / "cells").glob("*.json"))}

    @property
    def experiment(self) -> str:
        return str(self.config["experiment"])

    @property
    def title(self) -> str:
        tasks = self.config.get("tasks") or [{"task": self.config["task"]}]
        return ", ".join(str(task["task"]) for task in tasks)


def write(folders: Sequence[Path], page: Path) -> Path:
    """Write the page, and the figures that it shows beside it in `lab/`."""
    parts = [
        "# Laboratory results",
        "Measured on the machine named with each experiment. Written by `contest lab results FOLDER ... --out PAGE`. "
        "Published figures are those of other people's machines and seeds: the shape must agree, not the digits.",
    ]
    for folder in map(Folder, folders):
        parts += [f"## {folder.experiment.capitalize()}: {folder.title}", _about(folder)]
        if (folder.path / NOTE).is_file():
            parts.append((folder.path / NOTE).read_text(encoding="utf-8").strip())
        if folder.experiment not in ("repeated", "finetune"):  # these have tables beside the published figures
            parts += _tables(folder)
        parts += CHECKS.get(folder.experiment, lambda _: [])(folder)
        parts += _figures(folder, page)
    write_lines(page, "\n\n".join(parts))
    return page


def _about(folder: Folder) -> str:
    machine = folder.machine
    shown = (
        "initialisation",
        "train_images",
        "test_images",
        "batch_size",
        "augment",
        "training",
        "pretraining",
        "tuning",
        "seed",
    )
    task = (folder.config.get("tasks") or [folder.config])[0]
    values = {key: folder.config.get(key, task.get(key)) for key in shown}
    settings = "; ".join(
        f"{key.replace('_', ' ')} {_plain(value)}" for key, value in values.items() if value is not None
    )
    return (
        f"{settings}. On {machine['processor']}, {machine['cores']} cores ({machine['torch threads']} thread(s) used), "
        f"{machine['memory']}, torch {machine['torch']}, {machine['time'][:10]}; the machine was shared with other "
        "work, so that seconds are upper bounds."
    )


def _plain(value: object) -> str:
    if not isinstance(value, dict):
        return str(value)
    words = [f"{value['epochs']:g} epochs {value['optimiser']} {value['learning_rate']:g}"]
    if value["schedule"] != "constant":
        words.append(value["schedule"])
    return "(" + ", ".join(words + (["bf16"] if value["bf16"] else [])) + ")"


def _repeated(folder: Folder) -> list[str]:
    fraction, rounds = folder.config["fraction"], folder.config["rounds"]
    dense = folder.cells.get("dense")
    if dense is None:
        return ["Not a cell is finished yet."]
    rows = []
    for index in range(rounds + 1):
        row: dict[str, Any] = {"Round": index}
        for variant in folder.config["variants"]:
            cell = dense if index == 0 else folder.cells.get(f"{variant}-{index:02d}")
            if cell is not None:
                row["Prunable (%)"], row["Whole model (%)"] = 100 * cell["sparsity"], 100 * cell["model_sparsity"]
            row[f"Accuracy (%), {variant}"] = None if cell is None else cell["metric"]
        rows.append(row)
    table = pd.DataFrame(rows)
    found = [_finished(folder, 1 + rounds * len(folder.config["variants"])), markdown(table)]
    weights = dense["nonzeros"]  # of the dense network: every prunable one
    exact = [100 * (weights - round(weights * (1 - fraction) ** k)) / dense["parameters"] for k in range(rounds + 1)]
    measured = table["Whole model (%)"].tolist() if "Whole model (%)" in table else []
    worst = max((abs(a - b) for a, b in zip(measured, exact, strict=False) if a == a), default=float("nan"))
    checks = [
        f"Whole-model sparsity differs from 1 - {1 - fraction:g}^k, by arithmetic, by at most {worst:.4f} points."
    ]
    if "mnist_fc" in str(folder.config.get("model")) and fraction == 0.33:
        checks += [
            f"Published for this net after round {k}: {value:.2f} %; here {measured[k]:.2f} %."
            for k, value in MNIST_SPARSITY.items()
            if k < len(measured)
        ]
    checks += _collapse(folder, rounds) + _sizes(folder)
    published = ", ".join(f"{name} {value:.2f} %" for name, value in TEXT_ACCURACY.items())
    checks.append(f"Published shape (text net on SST-2, chance 49.08 %): {published}.")
    layers = _tables(folder, "layers-none") if (folder.path / "results.json").is_file() else []
    return [*found, "\n".join(f"- {check}" for check in checks), *layers]


def _collapse(folder: Folder, rounds: int) -> list[str]:
    """Where the network without retraining falls below half, and what the others have there."""
    for index in range(1, rounds + 1):
        cell = folder.cells.get(f"none-{index:02d}")
        if cell is None or cell["metric"] >= COLLAPSE_PERCENT:
            continue
        others = [
            f"{name} {other['metric']:.2f} %"
            for variant, name in (("kept", "retrained"), ("initial", "rewound"))
            if (other := folder.cells.get(f"{variant}-{index:02d}"))
        ]
        there = f"; there {' and '.join(others)}" if others else ""
        return [
            f"Without retraining it collapses in round {index}, at {100 * cell['sparsity']:.2f} % sparsity: "
            f"{cell['metric']:.2f} %{there}."
        ]
    return ["Without retraining it does not collapse within these rounds."]


def _sizes(folder: Folder) -> list[str]:
    cells = [cell for cell in folder.cells.values() if "megabytes" in cell]
    smaller = [cell["sparsity"] for cell in cells if cell["megabytes"]["coo"] < cell["megabytes"]["dense"]]
    larger = [cell["sparsity"] for cell in cells if cell["megabytes"]["coo"] >= cell["megabytes"]["dense"]]
    if not (smaller and larger):
        return []
    return [
        f"A sparse COO file is larger than the dense one up to {100 * max(larger):.2f} % sparsity and smaller from "
        f"{100 * min(smaller):.2f} % on (published: until about {COO_PERCENT} %)."
    ]


def _compare(folder: Folder) -> list[str]:
    config = folder.config
    late = [name for name in config["methods"] if pruning.method(name).when == "after"]
    epochs = f"{config['training']['epochs']:g}"
    checks = []
    if late:
        checks.append(
            f"Networks that are pruned after training ({', '.join(late)}) were trained before and after pruning: "
            f"{config['pretraining']['epochs']:g} + {epochs} epochs against {epochs} of the others. Compare such a "
            "column with its own first row rather than with the other columns."
        )
    sparsities = {
        ratio: [cell["sparsity"] for key, cell in folder.cells.items() if key.endswith(f"-{ratio:g}")]
        for ratio in config["ratios"]
        if ratio > 1
    }
    worst = max((abs(s - (1 - 1 / ratio)) for ratio, found in sparsities.items() for s in found), default=0.0)
    checks.append(f"Sparsity differs from 1 - 1/c by at most {100 * worst:.5f} points over all methods and ratios.")
    return ["\n".join(f"- {check}" for check in checks)]


def _quantise(folder: Folder) -> list[str]:
    ran = [cell for key, cell in folder.cells.items() if cell.get("equal") is not None and "-32-" not in key]
    if not ran:
        return []
    equal = 100 * min(cell["equal"] for cell in ran)
    rounded = 100 * min(cell["equal_rounded"] for cell in ran)
    apart = max(abs(cell["metric"] - cell["onnx_metric"]) for cell in ran)
    good = equal >= EQUAL_PERCENT and apart <= ACCURACY_POINTS
    return [
        f"- {len(ran)} QCDQ networks in ONNX Runtime: at least {equal:.2f} % equal predictions on {ran[0]['samples']} "
        f"test samples, accuracy at most {apart:.2f} points apart (asked: {EQUAL_PERCENT} %, {ACCURACY_POINTS}): "
        f"{'passed' if good else 'NOT passed'}.\n"
        f"- In a session as everyone opens it, which rounds biases, the worst of them has {rounded:.2f} %."
    ]


def _deploy(folder: Folder) -> list[str]:
    from contest.lab.onnx_runtime import TOLERANCE

    cells = [cell for cell in folder.cells.values() if "onnx" in cell]
    if not cells:
        return []
    worst, equal = max(cell["difference"] for cell in cells), min(cell["equal"] for cell in cells)
    checks = [
        f"Outputs of ONNX Runtime differ from PyTorch's by at most {worst:.1e} of the largest (tolerance "
        f"{TOLERANCE:g}); equal predictions: at least {100 * equal:.2f} %."
    ]
    dense = folder.cells.get("zeros-0", cells[0])
    for engine, name in (("torch", "PyTorch"), ("onnx", "ONNX Runtime")):
        quicker = [
            f"{cell['kind']} {100 * cell['asked']:g} %: {dense[engine]['median_s'] / cell[engine]['median_s']:.2f}x"
            for cell in cells
            if cell["asked"]
        ]
        checks.append(f"Speed by median latency against the dense network, {name}: {', '.join(quicker)}.")
    return ["\n".join(f"- {check}" for check in checks)]


def _finetune(folder: Folder) -> list[str]:
    names = {"dense": "before", "pruned": "pruned", "tuned": "fine-tuned"}
    cnn = "mnist_cnn" in str(folder.config.get("model")) and folder.config.get("dataset") == "mnist"
    rows = []
    for key, name in names.items():
        cell = folder.cells.get(key)
        row = {
            "Stage": name,
            "Accuracy (%)": cell and cell["metric"],
            "Size (MiB)": cell and cell["nonzeros"] * 4 / 2**20,
            "Sparsity (%)": cell and 100 * cell["sparsity"],
        }
        if cnn:
            row |= {"Published accuracy (%)": CNN[key][0], "Published size (MiB)": CNN[key][1]}
        rows.append(row)
    found = [_finished(folder, len(names)), markdown(pd.DataFrame(rows))]
    if "tuned" in folder.cells:
        lost = folder.cells["dense"]["metric"] - folder.cells["tuned"]["metric"]
        verdict = "within" if lost <= RECOVERY_POINTS else "NOT within"
        fell = folder.cells["dense"]["metric"] - folder.cells["pruned"]["metric"]
        found.append(
            f"- It fell by {fell:.2f} points and came back to {verdict} {RECOVERY_POINTS:g} point of dense "
            f"({lost:+.2f} points lost)."
        )
    return found


def _finished(folder: Folder, total: int) -> str:
    done = len(folder.cells)
    return "All cells are finished." if done >= total else f"**Unfinished**: {done} of {total} cells so far."


def _tables(folder: Folder, *only: str) -> list[str]:
    """The folder's short tables with their captions: all, or those of the given names."""
    written = folder.path / "results.json"
    if not written.is_file():
        return [f"**Unfinished**: {len(folder.cells)} cells so far."]
    captions: dict[str, str] = json.loads(written.read_text(encoding="utf-8"))["captions"]
    found = []
    for name, caption in captions.items():
        text = (folder.path / "tables" / f"{name}.md").read_text(encoding="utf-8").strip()
        if name in only or (not only and len(text.splitlines()) <= 30):
            found.append(f"**{caption}**\n\n{text}")
    return found


CHECKS: dict[str, Callable[[Folder], list[str]]] = {
    "repeated": _repeated,
    "finetune": _finetune,
    "compare": _compare,
    "quantise": _quantise,
    "deploy": _deploy,
}
SHOWN = {
    "repeated": ("accuracy-by-sparsity", "accuracy-by-sparsity-end", "layers", "sizes"),
    "finetune": ("kernels-dense", "kernels-pruned", "kernels-tuned", "samples-pruned", "samples-tuned"),
    "compare": ("accuracy", "flops", "layer-sparsity", "test-loss"),
    "sensitivity": ("sensitivity",),
    "deploy": ("latency", "accuracy"),
    "quantise": ("accuracy-together", "accuracy-by-bits", "accuracy-by-size"),
}


def _figures(folder: Folder, page: Path) -> list[str]:
    found = []
    for name in SHOWN[folder.experiment]:
        source = folder.path / "figures" / f"{name}.svg"
        if source.exists():
            target = page.parent / "lab" / f"{folder.path.name}-{name}.svg"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            found.append(f"![{name.replace('-', ' ')}: {folder.title}](lab/{target.name})")
    return found
