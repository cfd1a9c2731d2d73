"""`contest lab`: the experiments on the command line. Each one is a function of `contest.lab` with the same options."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from contest.datasets.registry import names_help
from contest.errors import UsageError
from contest.lab import registry
from contest.lab.course_commands import collect, gallery, labs, methods, notebook, report, results, run, show_results

if TYPE_CHECKING:
    from contest.lab import Task

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def lab() -> None:
    """The laboratory experiments: tables, figures and a page in a folder; a killed one goes on where it stopped."""


for command in (run, notebook, labs, report, collect, methods, results, gallery):
    lab.add_command(command)


def _common(experiment: str, model: str, batch_size: int, initialisation: str = "torch") -> Callable[[F], F]:
    """What all experiments ask (the task, the folder, the machine), and how one is run over seeds and shown."""
    options: Sequence[Callable[[F], F]] = (
        click.option("--task", help="Your own: package.module:factory, a function that returns a contest.lab.Task."),
        click.option("--model", default=model, show_default=True, help="A network by name, such as vgg16:width=0.25."),
        click.option("--dataset", default="mnist", show_default=True, help=names_help()),
        click.option("--data", type=click.Path(path_type=Path), help="Folder of the data set."),
        click.option("--batch-size", default=batch_size, show_default=True, help="Images in a training batch."),
        click.option("--augment", is_flag=True, help="Random crops, and flips where they keep the class."),
        click.option("--train-images", type=int, help="Only the first so many, for a quick look."),
        click.option("--test-images", type=int, help="Only the first so many."),
        click.option(
            "--initialisation",
            default=initialisation,
            show_default=True,
            help="torch (plain layers), kaiming (SynFlow's code) or family (the contest's recipes).",
        ),
        click.option(
            "--prunable",
            multiple=True,
            help="Which weights: a name, module, pattern ('lstm.weight_*'), or default; may be repeated.",
        ),
        click.option("--out", type=click.Path(path_type=Path), required=True, help="Results folder."),
        click.option("--seed", default=0, show_default=True, help="Everything random comes from it."),
        click.option("--seeds", default=1, show_default=True, help="Runs from so many seeds: means and bands."),
        click.option("--again", multiple=True, help="Compute these finished cells anew, such as 'kept-0*'."),
        click.option("--device", default="cpu", show_default=True, help="auto, cpu or cuda (built-in tasks only)."),
        click.option("--threads", type=int, help="Of torch and ONNX Runtime (default: torch's own)."),
    )

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def command(**given: Any) -> None:
            import torch

            from contest.lab.registry import execute

            if given["threads"]:
                torch.set_num_threads(given["threads"])
            chosen = function(**given)
            models = [name.strip() for name in given.get("models", "").split(";") if name.strip()] or [given["model"]]
            tasks = [_task(given, name) for name in models]
            show_results(
                execute(
                    experiment, tasks, given["out"], chosen, seeds=given["seeds"], progress=True, again=given["again"]
                )
            )

        for option in reversed(options):
            command = option(command)
        return command  # type: ignore[return-value]

    return decorate


def _task(given: dict[str, Any], model: str) -> Task:
    from dataclasses import replace

    from contest.lab import image_task, load_task
    from contest.lab.course_commands import with_score
    from contest.training import choose_device

    prunable = {"prunable": given["prunable"]} if given["prunable"] else {}
    if given["task"]:
        return replace(load_task(given["task"]), **prunable)
    found = image_task(
        model,
        given["dataset"],
        data=given["data"],
        batch_size=given["batch_size"],
        augment=given["augment"],
        train_images=given["train_images"],
        test_images=given["test_images"],
        initialisation=given["initialisation"],
        device=str(choose_device(given["device"])),
        **prunable,
    )
    return with_score(found)


@lab.command()
@_common("repeated", "mnist_fc", 64)
@click.option("--rounds", default=10, show_default=True, help="Prunings, one after the other.")
@click.option("--fraction", default=0.33, show_default=True, help="Of the remaining weights, removed in each round.")
@click.option("--method", default="magnitude", show_default=True, help="A method, or your own package.module:function.")
@click.option("--variants", default="none,kept,initial", show_default=True, help="Or a step k to rewind to.")
@click.option("--training", default="", help="epochs=2,optimiser=adam,learning_rate=0.001")
@click.option(
    "--disk",
    type=click.Choice(["dense", "coo", "csr", "packed"]),
    default="packed",
    show_default=True,
    help="The format whose size stands in the tables and the plot.",
)
@click.option("--latency-batch", default=256, show_default=True, help="Samples in one timed run.")
@click.option("--latency-runs", default=20, show_default=True, help="Timed runs.")
@click.option("--latency-warmup", default=3, show_default=True, help="Runs before the timed ones.")
def repeated(
    rounds: int,
    fraction: float,
    method: str,
    variants: str,
    training: str,
    disk: Any,
    latency_batch: int,
    latency_runs: int,
    latency_warmup: int,
    **given: Any,
) -> Any:
    """Prune a fraction of what remains, again and again: no retraining, retraining, rewinding."""
    from contest.lab import Repeated, Training

    return Repeated(
        rounds,
        fraction,
        method,
        registry.names(variants),
        registry.training(training, Training()),
        given["seed"],
        disk=disk,
        latency_batch=latency_batch,
        latency_runs=latency_runs,
        latency_warmup=latency_warmup,
    )


@lab.command()
@_common("compare", "vgg16:width=0.25", 128, initialisation="kaiming")
@click.option("--models", default="", help="Several networks (separated by ;) instead of --model.")
@click.option(
    "--methods",
    default="random,magnitude,snip,grasp,synflow",
    show_default=True,
    help="Pruning methods, with commas, with options (grasp:temperature=100); your own as package.module:function.",
)
@click.option("--ratios", default="", help="Compression ratios (default: 1,2,5,10,15,20).")
@click.option("--sparsities", default="", help="The same as sparsities, such as 0,0.5,0.9.")
@click.option("--exponents", default="", help="The same as powers of ten, such as 0,0.5,1,1.5.")
@click.option("--look-at", default=10.0, show_default=True, help="The ratio that is looked at layer by layer.")
@click.option("--training", default="", help="epochs=10,optimiser=sgd,learning_rate=0.05")
@click.option("--pretraining", default="", help="Before magnitude pruning, likewise (200 epochs in the original).")
@click.option("--scoring-samples", default=256, show_default=True, help="Images from which data-driven methods score.")
def compare(
    models: str,
    methods: str,
    ratios: str,
    sparsities: str,
    exponents: str,
    look_at: float,
    training: str,
    pretraining: str,
    scoring_samples: int,
    **given: Any,
) -> Any:
    """Prune once by several methods at several compression ratios, and train every network."""
    from contest.lab import Compare

    default = Compare()
    return Compare(
        registry.methods(methods),
        registry.ratios(ratios, sparsities, exponents, default.ratios),
        look_at,
        registry.training(training, default.training),
        registry.training(pretraining, default.pretraining),
        given["seed"],
        scoring_samples,
    )


@lab.command()
@_common("finetune", "mnist_cnn", 256)
@click.option("--sparsity", default=0.9, show_default=True, help="Of each weight tensor, or of all by other methods.")
@click.option("--layer", "layers", multiple=True, help="conv1.weight=0.5: a sparsity for one layer; others stay whole.")
@click.option(
    "--ratios",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file of ratios from `contest lab sensitivity`, instead of --layer.",
)
@click.option(
    "--method", default="fine-grained", show_default=True, help="A pruning method, or your own package.module:function."
)
@click.option("--layer-by-layer", is_flag=True, help="Prune and retrain one layer after another.")
@click.option("--training", default="", help="epochs=5,optimiser=adadelta,learning_rate=1.0")
@click.option("--tuning", default="", help="epochs=2,optimiser=sgd,learning_rate=0.1")
@click.option("--look-at", default="", help="The convolution whose kernels are drawn (default: the first).")
@click.option("--kernels", default=64, show_default=True, help="How many kernels at most.")
def finetune(
    sparsity: float,
    layers: tuple[str, ...],
    ratios: Path | None,
    method: str,
    layer_by_layer: bool,
    training: str,
    tuning: str,
    look_at: str,
    kernels: int,
    **given: Any,
) -> Any:
    """Prune a trained network, fine-tune it with the mask held, and look at each stage."""
    from contest.lab import FineTune
    from contest.pruning import read_ratios

    default = FineTune()
    each = tuple(
        (name.partition("=")[0], registry.numbers(name.partition("=")[2])[0]) for name in layers if "=" in name
    )
    if len(each) != len(layers):
        raise UsageError(f"--layer is {', '.join(layers)}; it must be name=sparsity, such as conv1.weight=0.5")
    if ratios is not None:
        each = read_ratios(ratios)
    return FineTune(
        sparsity=sparsity,
        layers=each,
        method=method,
        layer_by_layer=layer_by_layer,
        look_at=look_at,
        kernels=kernels,
        training=registry.training(training, default.training),
        tuning=registry.training(tuning, default.tuning),
        seed=given["seed"],
    )


@lab.command()
@_common("sensitivity", "mnist_cnn", 256)
@click.option(
    "--sparsities",
    default="0,0.3,0.5,0.7,0.8,0.9,0.95,0.99",
    show_default=True,
    help="Fractions of zeros, with commas.",
)
@click.option("--group", "groups", multiple=True, help="early=conv1,conv2: layers (or prefixes) pruned together.")
@click.option(
    "--method", default="magnitude", show_default=True, help="A pruning method, or your own package.module:function."
)
@click.option("--targets", default="0.8", show_default=True, help="Sparsities for which ratios are suggested.")
@click.option("--training", default="", help="epochs=2,optimiser=adam,learning_rate=0.001")
@click.option("--tuning", default="", help="epochs=1,... of the networks pruned by the suggested ratios")
def sensitivity(
    sparsities: str, groups: tuple[str, ...], method: str, targets: str, training: str, tuning: str, **given: Any
) -> Any:
    """Prune each layer, or named group of layers, alone; suggest a ratio for each."""
    from contest.lab import Sensitivity

    default = Sensitivity()
    named = tuple((group.partition("=")[0], registry.names(group.partition("=")[2])) for group in groups)
    if not all(members for _, members in named):
        raise UsageError(f"--group is {', '.join(groups)}; it must be name=layer,layer")
    return Sensitivity(
        registry.numbers(sparsities),
        named,
        method,
        registry.training(training, default.training),
        registry.numbers(targets),
        registry.training(tuning, default.tuning),
        given["seed"],
    )


@lab.command()
@_common("deploy", "mnist_cnn", 256)
@click.option("--sparsities", default="0,0.5,0.8,0.9,0.95", show_default=True, help="Single weights set to zero.")
@click.option("--removed", default="0.5,0.8", show_default=True, help="Fractions of weights removed as channels.")
@click.option(
    "--method", default="magnitude", show_default=True, help="A pruning method, or your own package.module:function."
)
@click.option("--training", default="", help="epochs=2,optimiser=adam,learning_rate=0.001")
@click.option("--tuning", default="", help="epochs=1,... after a pruning")
@click.option("--batch", default=1, show_default=True, help="Samples in one timed run.")
@click.option("--runs", default=50, show_default=True, help="Timed runs.")
@click.option("--warmup", default=10, show_default=True, help="Runs before the timed ones.")
def deploy(
    sparsities: str,
    removed: str,
    method: str,
    training: str,
    tuning: str,
    batch: int,
    runs: int,
    warmup: int,
    **given: Any,
) -> Any:
    """Run pruned networks in PyTorch and in ONNX Runtime: latency, agreement, size."""
    from contest.lab import Deploy

    default = Deploy()
    return Deploy(
        registry.numbers(sparsities),
        registry.numbers(removed),
        method,
        registry.training(training, default.training),
        registry.training(tuning, default.tuning),
        batch,
        runs,
        warmup,
        given["seed"],
    )


@lab.command()
@_common("quantise", "mnist_cnn", 256)
@click.option("--sparsities", default="0,0.5,0.8,0.9", show_default=True, help="Fractions of zeros, with commas.")
@click.option("--bits", default="32,8,4,2,1", show_default=True, help="Of weights and inputs; 32 is float.")
@click.option(
    "--orders",
    default="together,prune-first,quantise-first,post-training",
    show_default=True,
    help="Together, or one after the other.",
)
@click.option(
    "--method", default="magnitude", show_default=True, help="A pruning method, or your own package.module:function."
)
@click.option("--training", default="", help="epochs=2,optimiser=adam,learning_rate=0.001")
@click.option("--tuning", default="", help="epochs=1,... after each step")
@click.option("--latency-batch", default=1, show_default=True, help="Samples in one timed run.")
@click.option("--latency-runs", default=30, show_default=True, help="Timed runs.")
def quantise(
    sparsities: str,
    bits: str,
    orders: str,
    method: str,
    training: str,
    tuning: str,
    latency_batch: int,
    latency_runs: int,
    **given: Any,
) -> Any:
    """Prune and quantise on a grid, together and one after the other."""
    from contest.lab import Quantise

    default = Quantise()
    return Quantise(
        sparsities=registry.numbers(sparsities),
        bits=tuple(int(b) for b in registry.numbers(bits)),
        method=method,
        seed=given["seed"],
        orders=registry.names(orders),  # type: ignore[arg-type]  # checked there
        training=registry.training(training, default.training),
        tuning=registry.training(tuning, default.tuning),
        latency_batch=latency_batch,
        latency_runs=latency_runs,
    )
