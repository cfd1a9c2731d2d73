"""Trials in TensorBoard, MLflow or Weights & Biases while a study runs: `contest search --track`.

Optuna's own callbacks for these are deprecated (4.9), so each service's own library is asked.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from contest.errors import UsageError
from search.study.trial import TrialRecord

log = logging.getLogger("search")


class Tracker(Protocol):
    def __call__(self, record: TrialRecord) -> None:
        """Log one trial: its parameters, its curve on validation (step: per cent of the training), how it ended."""


def tracker(names: Sequence[str], directory: Path) -> Tracker:
    """Tells all of `names` of a trial; one that fails is warned of and told no more, since a study needs none of them.

    Raises UsageError for one that is not installed.
    """
    services = {name: SERVICES[name](directory) for name in dict.fromkeys(names)}

    def tell(record: TrialRecord) -> None:
        for name, service in list(services.items()):
            try:
                service(record)
            except Exception as error:  # a network or a server of somebody else's, which may fail in any way
                log.warning("%s is told no more of this study: %s", name, error)
                del services[name]

    return tell


def _figures(record: TrialRecord) -> dict[str, float]:
    assert record.result is not None
    result = record.result
    return {
        "score": result.price.total,
        "validation accuracy": result.accuracy,
        "images": result.images,
        "seconds": result.seconds,
    }


def _curve(record: TrialRecord) -> list[tuple[int, float]]:
    assert record.result is not None
    return [(round(100 * fraction), accuracy) for fraction, accuracy in record.result.curve]


def _about(record: TrialRecord) -> dict[str, str]:
    return {"stage": record.stage, "why": record.why, "architecture": str(record.candidate.architecture)}


def _tensorboard(directory: Path) -> Tracker:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise _missing("tensorboard", "tensorboard") from error

    def tell(record: TrialRecord) -> None:
        with SummaryWriter(str(directory / "tensorboard" / f"trial-{record.number}")) as writer:
            for step, accuracy in _curve(record):
                writer.add_scalar("validation accuracy", accuracy, step)
            writer.add_hparams({**_about(record), **record.params}, _figures(record), run_name=".")

    return tell


def _mlflow(directory: Path) -> Tracker:
    """Where MLFLOW_TRACKING_URI says; an experiment for the study, a run for the trial."""
    try:
        import mlflow
    except ImportError as error:
        raise _missing("mlflow", "mlflow-skinny") from error

    def tell(record: TrialRecord) -> None:
        mlflow.set_experiment(directory.name)
        with mlflow.start_run(run_name=f"trial {record.number}", tags=_about(record)):
            mlflow.log_params(record.params)
            for step, accuracy in _curve(record):
                mlflow.log_metric("validation accuracy", accuracy, step=step)
            mlflow.log_metrics({name: v for name, v in _figures(record).items() if name != "validation accuracy"})

    return tell


def _wandb(directory: Path) -> Tracker:
    """The project that WANDB_PROJECT says, else `contest`; a group for the study, a run for the trial."""
    try:
        import wandb
    except ImportError as error:
        raise _missing("wandb", "wandb") from error

    def tell(record: TrialRecord) -> None:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "contest"),
            group=directory.name,
            name=f"trial {record.number}",
            config={**_about(record), **record.params},
            reinit="create_new",
            settings=wandb.Settings(silent=True),  # the terminal is the study's
        )
        for step, accuracy in _curve(record):
            run.log({"validation accuracy": accuracy}, step=step)
        run.summary.update(_figures(record))
        run.finish()

    return tell


def _missing(name: str, package: str) -> UsageError:
    return UsageError(f"--track {name} needs a package that is not installed: pip install {package}")


SERVICES: Mapping[str, Callable[[Path], Tracker]] = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
