"""The dense network that most experiments start from: one cell, trained once."""

from __future__ import annotations

from torch import nn

from contest.lab.results.resumable import Cell, Cells
from contest.lab.task import Task
from contest.lab.training import Training, train

KEY = "dense"


def dense(task: Task, cells: Cells, training: Training, seed: int) -> tuple[nn.Module, Cell]:
    """The trained network and its cell (metric, loss, training-loss curve); both come from the folder if they can."""
    model = task.new(seed)

    def compute() -> Cell:
        curve: list[float] = []
        train(model, task.train, task.loss, training, seed=seed, watch=lambda _, loss: curve.append(loss))
        cells.save_state(KEY, model.state_dict())
        return {"metric": task.measure(model), "loss": task.mean_loss(model), "curve": curve}

    cell = cells(KEY, compute)
    model.load_state_dict(cells.load_state(KEY))
    return model, cell
