"""Contests beside each other on one board: CIFAR-100, MNIST, and a user's own rule and data, each its own images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fastapi.testclient import TestClient

from contest import networks
from contest.cli import cli
from contest.model_file import freeze, save
from leaderboard.app import create_app
from leaderboard.client import submit_here
from leaderboard.settings import BoardSettings

RULE = """name = "{name}"
dataset = "{name}"
threshold = 0.75
params_reference = 100_000
operations_reference = 1_000_000
convention = "macs"
"""
# Of each contest: images of this shape, classes, the rule's references and what it calls an operation.
CONTESTS = {
    "cifar100": ((3, 32, 32), 100, "micronet-cifar100", 36.5e6),
    "mnist": ((1, 28, 28), 10, "mnist.toml", 100_000.0),
    "leaves": ((3, 24, 24), 4, "leaves.toml", 100_000.0),
}


def network(folder: Path, name: str, data: Path) -> tuple[Path, int]:
    """An untrained network, and a test set whose labels are what it says: private, and all right but one in ten."""
    shape, classes, _, _ = CONTESTS[name]
    torch.manual_seed(len(name))
    architecture = networks.parse("thin:widths=4-6,depths=1-1")
    frozen = freeze(
        networks.build(architecture, shape, classes).eval(), architecture, image_shape=shape, classes=classes
    )
    save(frozen, folder / f"{name}.pt")
    pixels = torch.randint(256, (40, *shape), dtype=torch.uint8)
    labels = frozen(pixels.float() / 255).argmax(1).numpy()
    labels[:4] = (labels[:4] + 1) % classes
    images = pixels.permute(0, 2, 3, 1).numpy().squeeze()
    every = np.arange(classes).repeat(2)
    np.savez(
        data / f"{name}.npz",
        x_train=np.resize(images, (len(every), *images.shape[1:])),
        y_train=every,
        x_test=images,
        y_test=labels,
    )
    return folder / f"{name}.pt", sum(p.numel() for n, p in frozen.state_dict().items() if p.ndim > 1)


@pytest.mark.slow
def test_three_contests_on_one_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("mnist", "leaves"):
        Path(f"{name}.toml").write_text(RULE.format(name=name))
    board, files = tmp_path / "board", {}
    for name, (_, _, rule, _) in CONTESTS.items():
        files[name] = network(tmp_path, name, data)
        made = CliRunner().invoke(cli, ["admin", "create", name, "--rule", rule, "--directory", str(board)])
        assert made.exit_code == 0, made.output
    settings = BoardSettings(directory=board, data=data, workers=0)
    for name, (path, weights) in files.items():
        entry = submit_here(path, "The Weights", settings, contest=name)
        threshold = 0.80 if name == "cifar100" else 0.75
        assert (entry["state"], entry["accuracy"]) == ("ranked", 0.9) and threshold < 0.9, entry["reason"]
        # Every weight in floats over the reference; biases and norms are a little more.
        assert weights <= entry["params"] * CONTESTS[name][3] < 1.5 * weights + 300
    other = submit_here(files["mnist"][0], "The Weights", settings, contest="leaves")
    assert other["state"] == "refused" and "image" in other["reason"]
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        for name in CONTESTS:
            (row,) = client.get(f"/api/v1/contests/{name}/ranking").json()["rows"]
            assert row["team"] == "The Weights" and row["rank"] == 1
            assert (
                client.get(f"/contests/{name}").status_code == client.get(f"/contests/{name}/rules").status_code == 200
            )
            assert client.get(f"/contests/{name}/plot.svg").status_code == 200
        assert client.get("/").text.count("The Weights") == 3
