"""The laboratory: experiments on pruning, quantisation and deployment, on any model, data and metric.

    from contest import lab
    results = lab.repeated(lab.image_task("mnist_fc", "mnist"), Path("results"))

Every experiment takes a `Task`, writes tables, figures and a page into a folder, and goes on where it was killed.
"""

from contest.lab.experiments.compare import Compare, compare
from contest.lab.experiments.deploy import Deploy, deploy
from contest.lab.experiments.finetune import FineTune, finetune
from contest.lab.experiments.layer_sensitivity import Sensitivity, sensitivity
from contest.lab.experiments.quantise import Quantise, quantise
from contest.lab.experiments.repeated import Repeated, repeated
from contest.lab.image_task import image_task
from contest.lab.results.report import Results
from contest.lab.task import ACCURACY, Metric, Task, load_task
from contest.lab.training import Training, train

__all__ = [
    "ACCURACY",
    "Compare",
    "Deploy",
    "FineTune",
    "Metric",
    "Quantise",
    "Repeated",
    "Results",
    "Sensitivity",
    "Task",
    "Training",
    "compare",
    "deploy",
    "finetune",
    "image_task",
    "load_task",
    "quantise",
    "repeated",
    "sensitivity",
    "train",
]
