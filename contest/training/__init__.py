"""Training, evaluation and distillation of any image classifier."""

from contest.training.averaging import refresh_statistics
from contest.training.checkpoint import start_from
from contest.training.device import choose_device
from contest.training.distillation import Ensemble, answers_file, load_teachers, question, soft_labels
from contest.training.evaluation import Epoch, Evaluation, History, evaluate, forward
from contest.training.loop import fit

__all__ = [
    "Ensemble",
    "Epoch",
    "Evaluation",
    "History",
    "answers_file",
    "choose_device",
    "evaluate",
    "fit",
    "forward",
    "load_teachers",
    "question",
    "refresh_statistics",
    "soft_labels",
    "start_from",
]
