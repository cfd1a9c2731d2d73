"""Training, evaluation and distillation of any image classifier."""

from contest.training.checkpoint import start_from
from contest.training.evaluation import Evaluation, evaluate, forward
from contest.training.history import Epoch, History
from contest.training.loop import fit
from contest.training.machine import choose_device
from contest.training.statistics import refresh_statistics
from contest.training.teacher import Ensemble, labels_name, load_teachers, soft_labels

__all__ = [
    "Ensemble",
    "Epoch",
    "Evaluation",
    "History",
    "choose_device",
    "evaluate",
    "fit",
    "forward",
    "labels_name",
    "load_teachers",
    "refresh_statistics",
    "soft_labels",
    "start_from",
]
