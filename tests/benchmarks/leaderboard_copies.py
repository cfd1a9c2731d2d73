"""How alike networks answer: copies, copies that were changed, networks of a common parent, networks trained apart.

    python tests/benchmarks/leaderboard_copies.py FILES... [--images 4000]

FILES are model files on CIFAR-10 (`CONTEST_DATA`); each is also changed a little, without training. The second table is
of small networks on scikit-learn's digits, trained and tuned here (half a minute).
"""

from __future__ import annotations

import argparse
import copy
import itertools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from contest.datasets import load
from contest.model_file import load as load_model


@torch.no_grad()
def said(model: nn.Module, pixels: Tensor) -> np.ndarray:
    """The class of each image."""
    model.eval()
    return torch.cat([model(x).argmax(1) for x in pixels.split(250)]).numpy()


def fewer(model: nn.Module, share: float) -> nn.Module:
    """A copy in which so large a share of the weights that are not zero, the smallest, became zero."""
    changed = copy.deepcopy(model)
    for name, tensor in changed.state_dict().items():
        if tensor.ndim in (2, 4) and tensor.numel() > 500 and "code" in name:
            size = tensor.abs().float() + torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1)) / 2
            alive = size[tensor != 0]
            tensor[(tensor != 0) & (size <= alive.quantile(share))] = 0
    return changed


def cifar(paths: list[Path], images: int) -> None:
    test = load("cifar10").test
    assert test is not None
    pixels, labels = test.pixels[:images].float() / 255, test.labels[:images].numpy()
    answers: dict[str, np.ndarray] = {}
    for path in paths:
        model = load_model(path)
        answers[path.stem] = said(model, pixels)
        print(f"{path.stem}: {(answers[path.stem] == labels).mean():.4f}", flush=True)
    model, name = load_model(paths[0]), paths[0].stem
    for share in (0.02, 0.05, 0.1, 0.2):
        answers[f"{name} less {share:.0%}"] = said(fewer(model, share), pixels)
    table(answers, labels)


def table(answers: dict[str, np.ndarray], labels: np.ndarray) -> None:
    rows = []
    for (a, one), (b, two) in itertools.combinations(answers.items(), 2):
        wrong = (one != labels) & (two != labels)
        same_error = float((one == two)[wrong].mean()) if wrong.any() else float("nan")
        rows.append((float((one == two).mean()), same_error, a, b))
    for agreement, same_error, a, b in sorted(rows, reverse=True):
        print(f"{100 * agreement:6.2f} %  same error {100 * same_error:5.1f} %  {a} / {b}")
    for name, one in answers.items():
        print(f"accuracy {100 * (one == labels).mean():.2f} %  {name}")


def digits() -> None:
    x, y = load_digits(return_X_y=True)
    pixels, labels = torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(y)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    learn, judge = order[:797], order[797:]

    def made(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 24, 3, stride=2, padding=1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24 * 16, 10),
        )

    def train(model: nn.Module, epochs: int, rate: float, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = copy.deepcopy(model).train()
        optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
        masks = {p: (p != 0).float() for p in model.parameters() if p.ndim > 1}
        for _ in range(epochs):
            for batch in learn[torch.randperm(len(learn))].split(64):
                optimiser.zero_grad()
                F.cross_entropy(model(pixels[batch] + 0.1 * torch.randn(len(batch), 1, 8, 8)), labels[batch]).backward()
                optimiser.step()
                with torch.no_grad():
                    for parameter, mask in masks.items():
                        parameter.mul_(mask)
        return model

    def pruned(model: nn.Module, share: float) -> nn.Module:
        model = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter[parameter.abs() <= parameter.abs().flatten().quantile(share)] = 0
        return model

    first = train(made(0), 15, 0.05, 0)
    answers = {
        "first": first,
        "first, 1 epoch more": train(first, 1, 0.005, 1),
        "first, 5 epochs more": train(first, 5, 0.02, 2),
        "first, half pruned and tuned": train(pruned(first, 0.5), 5, 0.02, 3),
        "first, 80 % pruned and tuned": train(pruned(first, 0.8), 8, 0.02, 4),
        "another order of images": train(made(0), 15, 0.05, 5),
        "another start": train(made(1), 15, 0.05, 0),
        "yet another": train(made(2), 15, 0.05, 6),
    }
    table({name: said(model, pixels[judge]) for name, model in answers.items()}, labels[judge].numpy())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--images", type=int, default=4000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("digits")
    digits()
    if given.files:
        print("cifar10")
        cifar(given.files, given.images)
