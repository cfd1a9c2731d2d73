"""Teachers of folds: each image is answered by the network that has not learned from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from contest.candidate import Recipe
from contest.cli import cli
from contest.datasets import Batches, Images, load, split
from contest.datasets.folds import Fold, folds, without
from contest.errors import UsageError
from contest.model_file import read_manifest
from contest.training import load_teachers, soft_labels
from contest.training.distillation import Ensemble


class Says(nn.Module):
    """A network whose logits are 1 for one class, whatever it sees."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.register_buffer("number", torch.tensor(number))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return nn.functional.one_hot(torch.full((len(x),), int(self.number)), 10).float()


@pytest.fixture(scope="module")
def digits() -> Images:
    return load("digits").train


def test_the_fold_of_an_image_is_its_own_in_any_set(digits: Images) -> None:
    parts = folds(digits, 3)
    assert set(parts.tolist()) == {1, 2, 3}
    # 1,437 images in three parts: 479 each, give or take four sigma of a binomial.
    assert all(abs(int((parts == n).sum()) - len(digits) / 3) < 4 * (len(digits) * 2 / 9) ** 0.5 for n in (1, 2, 3))
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))[:200]
    assert torch.equal(folds(digits.take(order), 3), parts[order])
    left = without(digits, Fold(2, 3))
    assert len(left) == int((parts != 2).sum()) and set(folds(left, 3).tolist()) == {1, 3}


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/1", "1", "a/b", "1/3/2", ""])
def test_what_is_no_fold_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"like 2/5"):
        Fold.parse(text)
    assert str(Fold.parse("2/5")) == "2/5"


@pytest.mark.parametrize("taught", [0, 2])
def test_each_image_is_answered_by_the_network_that_has_not_seen_it(taught: int, digits: Images) -> None:
    networks = [Says(0), Says(1), Says(2)]
    recipe = Recipe(batch_size=100, taught_epochs=taught, crop=1)
    answers = soft_labels(Ensemble(networks, crossed=True), digits, recipe=recipe, views=1)
    who = answers.argmax(-1) + 1
    parts = folds(digits, 3)
    if not taught:
        assert torch.equal(who, parts)
        return
    # The order of the images of an epoch, from the batches themselves.
    batches = Batches(digits, recipe)
    for epoch in range(taught):
        places = torch.cat([batch.places for batch in batches.epoch(epoch) if batch.places is not None])
        assert torch.equal(who[epoch], parts[places])
    assert sum(network.seen for network in networks) == taught * len(batches) * 100


def test_other_teachers_answer_all_together(digits: Images) -> None:
    answers = soft_labels(Ensemble([Says(0), Says(1)]), digits.take(torch.arange(50)), views=1)
    assert torch.equal(answers, torch.tensor([0.5, 0.5] + [0.0] * 8).expand(50, 10))


def test_mixed_images_are_of_two_folds(digits: Images) -> None:
    recipe = Recipe(batch_size=100, taught_epochs=1, mixup=0.2)
    with pytest.raises(UsageError, match="mixed image is of two folds"):
        soft_labels(Ensemble([Says(0), Says(1)], crossed=True), digits, recipe=recipe)


def test_from_the_command_line(digits: Images, tmp_path: Path) -> None:
    def train(*options: str) -> str:
        small = ["thin:widths=6-8,depths=1-1,strides=1-2", "--dataset", "digits"]
        done = CliRunner().invoke(cli, ["train", *small, *options])
        assert done.exit_code == 0, done.output
        return done.output

    paths = [tmp_path / f"teacher-{n}.pt" for n in (1, 2)]
    for path, fold in zip(paths, ("1/2", "2/2"), strict=True):
        train("--fold", fold, "--train", "epochs=1,crop=1", "--out", str(path))
        assert read_manifest(path).provenance["fold"] == fold
    parts = split(digits)
    both = load_teachers(paths[::-1], parts.train, 10, parts.sha256)
    assert both.crossed, "in any order"
    given = soft_labels(both, parts.train, views=1)
    alone = [soft_labels(load_teachers([path], parts.train, 10, parts.sha256), parts.train, views=1) for path in paths]
    first = folds(parts.train, 2) == 1
    torch.testing.assert_close(given[first], alone[0][first])
    torch.testing.assert_close(given[~first], alone[1][~first])
    teachers = [word for path in paths for word in ("--teacher", str(path))]
    train(*teachers, "--train", "epochs=1,crop=1,distillation=0.9", "--out", str(tmp_path / "student.pt"))
    with pytest.raises(UsageError, match=r"left out the folds 1/2, none: .* give all 2 of 1/2 to 2/2"):
        load_teachers([paths[0], tmp_path / "student.pt"], parts.train, 10, parts.sha256)
    refused = CliRunner().invoke(cli, ["train", "thin", "--dataset", "digits", "--fold", "3/2"])
    assert isinstance(refused.exception, UsageError) and "like 2/5" in str(refused.exception)
