"""What is known of data sets by name, and of one's own from a file beside the images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from contest import networks
from contest.candidate import Architecture, Bits, Candidate, Recipe
from contest.datasets import Images, load
from contest.datasets.registry import facts, known
from contest.errors import DataError
from contest.model_file import load as load_model
from contest.model_file import save
from contest.pipeline import compress

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(60) % 3

OWN = """
title = "Three flowers"
classes = ["rose", "tulip", "lily"]
flips = false
mean = [0.1, 0.2, 0.3]
std = [0.5, 0.6, 0.7]
"""


def own(folder: Path, text: str = OWN) -> Path:
    np.savez(folder / "flowers.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:9], y_test=LABELS[:9])
    (folder / "flowers.toml").write_text(text)
    return folder


def test_each_row_is_whole_and_torchvision_has_what_it_names() -> None:
    for name, row in known().items():
        assert row.name == name and row.title and row.flips is not None
        assert row.image_shape is not None and row.number_of_classes and row.statistics is not None
        assert len(row.statistics[0]) == len(row.statistics[1]) == row.image_shape[0]
        if row.torchvision is not None:
            assert hasattr(torchvision.datasets, row.torchvision)
    digits = load("digits")
    assert digits.image_shape == facts("digits").image_shape and digits.classes == facts("digits").classes
    assert facts("nobody").title == "nobody" and facts("nobody").image_shape is None


def test_torchvisions_names_of_fashion_mnists_classes_are_the_rows() -> None:
    theirs = [name.lower() for name in torchvision.datasets.FashionMNIST.classes]
    classes = facts("fashion-mnist").classes
    assert isinstance(classes, tuple) and [name.lower() for name in classes] == theirs


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_mean_and_deviation_are_those_of_the_training_images(name: str, data_directory: object) -> None:
    pixels = load(name).train.pixels.numpy().astype(np.float64) / 255
    mean, std = facts(name).statistics or ((), ())
    assert pixels.mean((0, 2, 3)) == pytest.approx(mean, abs=1e-4)
    assert pixels.std((0, 2, 3)) == pytest.approx(std, abs=1e-4)


def test_a_file_beside_the_images_says_what_they_cannot(tmp_path: Path) -> None:
    data = load("flowers", own(tmp_path))
    assert data.classes == ("rose", "tulip", "lily") and not data.flips
    part = data.train.take(torch.tensor([4, 2])).to("cpu")
    assert part.statistics == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)) and not part.flips


def test_a_network_normalises_as_its_data_set_says_and_its_file_keeps_it(tmp_path: Path) -> None:
    train = load("flowers", own(tmp_path)).train
    candidate = Candidate(
        Architecture("resnet", {"depth": 8, "width": 4}),
        Bits(4, 4),
        train=Recipe(epochs=1, batch_size=20),
        tune=Recipe(epochs=1, batch_size=20),
    )
    made = compress(candidate, train, None, image_shape=(3, 8, 8), classes=3, device="cpu")
    save(made.network, tmp_path / "model.pt")
    body = load_model(tmp_path / "model.pt").body
    images = train.pixels[:4].float() / 255
    mean = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    std = torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1)
    torch.testing.assert_close(dict(body.named_children())["normalise"](images), (images - mean) / std)


def test_without_a_word_a_network_normalises_as_it_did() -> None:
    model = networks.build(networks.parse("resnet:depth=8,width=4"))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    networks.see(model, Images(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2).long()).pixels.float())
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("titel = 'Flowers'", "key 'titel' \\(did you mean 'title'\\?\\)"),
        ("mean = [0.5, 0.5, 0.5]", "mean and std belong together"),
        ("mean = [0.5]\nstd = [0.0]", "std is \\[0.0\\]; it must be a number above 0 a channel"),
        ("mean = [0.5]\nstd = [0.5]", "images have 3 channels; mean and std"),
        ("image_shape = [3, 8, 8]\nmean = [0.5]\nstd = [0.5]", "mean has 1 numbers for 3 channels"),
        ("classes = 1", "classes is 1; it must be"),
        ("flips = 'no'", "flips is 'no'; it must be true or false"),
        ("classes = ['a'", "not a readable TOML file"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load("flowers", own(tmp_path, text))


def test_the_registry_is_read_without_torch() -> None:
    code = "import sys; from contest.datasets.registry import known; known(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
