"""`contest lab`: the experiments on the command line. Each one is a function of `contest.lab` with the same options."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from contest.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from contest.lab import Results, Task, Training

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def lab() -> None:
    """The laboratory experiments: tables, figures and a page in a folder; a killed one goes on where it stopped."""


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"'{text}' is not a list of numbers such as 0.5,0.9") from error


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _training(text: str, default: Training) -> Training:
    """`epochs=2,optimiser=adam,learning_rate=0.001` over the experiment's own defaults."""
    import dataclasses

    types: dict[str, Callable[[str], Any]] = {"float": float, "bool": lambda text: text.lower() in ("1", "true", "yes")}
    kinds = {field.name: types.get(str(field.type), str) for field in dataclasses.fields(default)}
    chosen: dict[str, Any] = {}
    for part in _names(text):
        name, separator, value = part.partition("=")
        if not separator or name not in kinds:
            raise UsageError(f"training option '{part}' is none of {', '.join(f'{known}=...' for known in kinds)}")
        try:
            chosen[name] = kinds[name](value)
        except ValueError as error:
            raise UsageError(f"training option {name}={value}: {error}") from error
    return dataclasses.replace(default, **chosen)


def _common(model: str, batch_size: int) -> Callable[[F], F]:
    """What all experiments ask: the task, the folder, the machine."""
    options: Sequence[Callable[[F], F]] = (
        click.option("--task", help="Your own: package.module:factory, a function that returns a contest.lab.Task."),
        click.option("--model", default=model, show_default=True, help="A network by name, such as vgg16:width=0.25."),
        click.option("--dataset", default="mnist", show_default=True, help="cifar10, cifar100, mnist or digits."),
        click.option("--data", type=click.Path(path_type=Path), help="Folder of the data set."),
        click.option("--batch-size", default=batch_size, show_default=True, help="Images in a training batch."),
        click.option("--augment", is_flag=True, help="Random crops, and flips where they keep the class."),
        click.option("--train-images", type=int, help="Only the first so many, for a quick look."),
        click.option("--test-images", type=int, help="Only the first so many."),
        click.option("--out", type=click.Path(path_type=Path), required=True, help="Results folder."),
        click.option("--seed", default=0, show_default=True, help="Everything random comes from it."),
        click.option("--device", default="cpu", show_default=True, help="auto, cpu or cuda (built-in tasks only)."),
        click.option("--threads", type=int, help="Of torch and ONNX Runtime (default: torch's own)."),
    )

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def command(**given: Any) -> None:
            import torch

            if given["threads"]:
                torch.set_num_threads(given["threads"])
            _finish(function(**given))

        for option in reversed(options):
            command = option(command)
        return command  # type: ignore[return-value]

    return decorate


def _task(given: dict[str, Any], model: str | None = None) -> Task:
    from dataclasses import replace

    from contest.lab import image_task, load_task
    from contest.training import choose_device

    if given["task"]:
        return load_task(given["task"])
    found = image_task(
        model or given["model"],
        given["dataset"],
        data=given["data"],
        batch_size=given["batch_size"],
        augment=given["augment"],
        train_images=given["train_images"],
        test_images=given["test_images"],
        device=str(choose_device(given["device"])),
    )
    score_file: Callable[[Path], float] | None = click.get_current_context().find_root().obj
    if score_file is None:
        return found
    return replace(found, score=lambda network: score_of(network, model or given["model"], found, score_file))


def score_of(network: nn.Module, model: str, task: Task, score_file: Callable[[Path], float]) -> float:
    """The score of a trained network of a built-in architecture: frozen, written, and read as any entry is.

    `score_file` comes from the command line, which knows `scoring`; the laboratory does not.
    """
    import tempfile

    from contest import networks
    from contest.model_file import freeze, save

    channels, height, width = task.example(1).shape[1:]
    shape = (channels, height, width)
    frozen = freeze(network, networks.parse(model), image_shape=shape, classes=len(task.classes))
    with tempfile.TemporaryDirectory() as folder:
        return score_file(save(frozen, Path(folder) / "model.pt"))


def _finish(results: Results) -> None:
    from rich.console import Console

    console = Console()
    for name, table in results.tables.items():
        if len(table) <= 40:
            _show(console, name, table)
    for note in results.notes:
        console.print(note)
    console.print(f"[bold]{results.finish()}[/bold]")


def _show(console: Any, name: str, table: Any) -> None:
    from rich.table import Table

    from contest.lab.results.tables import shown

    view = Table(title=name, title_justify="left")
    for column in table.columns:
        view.add_column(str(column), justify="left" if table[column].dtype == object else "right")
    for row in table.itertuples(index=False):
        view.add_row(*(shown(value) for value in row))
    console.print(view)


@lab.command()
@_common("mnist_fc", 64)
@click.option("--rounds", default=10, show_default=True, help="Prunings, one after the other.")
@click.option("--fraction", default=0.33, show_default=True, help="Of the remaining weights, removed in each round.")
@click.option("--method", default="magnitude", show_default=True, help="A method, or your own package.module:function.")
@click.option("--variants", default="none,kept,initial", show_default=True, help="Or a step k to rewind to.")
@click.option("--training", default="", help="epochs=2,optimiser=adam,learning_rate=0.001")
def repeated(rounds: int, fraction: float, method: str, variants: str, training: str, **given: Any) -> Results:
    """Prune a fraction of what remains, again and again: no retraining, retraining, rewinding."""
    from contest.lab import Repeated, Training, repeated

    chosen = Repeated(rounds, fraction, method, _names(variants), _training(training, Training()), given["seed"])
    return repeated(_task(given), given["out"], chosen, progress=True)


@lab.command()
@_common("vgg16:width=0.25", 128)
@click.option("--models", default="", help="Several networks (separated by ;) instead of --model.")
@click.option(
    "--methods",
    default="random,magnitude,snip,grasp,synflow",
    show_default=True,
    help="Pruning methods, with commas; your own as package.module:function.",
)
@click.option("--ratios", default="1,2,5,10,15,20", show_default=True, help="Compression ratios.")
@click.option("--look-at", default=10.0, show_default=True, help="The ratio that is looked at layer by layer.")
@click.option("--training", default="", help="epochs=10,optimiser=sgd,learning_rate=0.05")
@click.option("--pretraining", default="", help="Before magnitude pruning, likewise (200 epochs in the original).")
@click.option("--scoring-samples", default=256, show_default=True, help="Images from which data-driven methods score.")
def compare(
    models: str, methods: str, ratios: str, look_at: float, training: str, pretraining: str, scoring_samples: int,
    **given: Any,
) -> Results:  # fmt: skip
    """Prune once by several methods at several compression ratios, and train every network."""
    from contest.lab import Compare, compare

    default = Compare()
    chosen = Compare(
        _names(methods), _numbers(ratios), look_at, _training(training, default.training),
        _training(pretraining, default.pretraining), given["seed"], scoring_samples,
    )  # fmt: skip
    names = [name.strip() for name in models.split(";") if name.strip()] or [given["model"]]
    tasks = [_task(given, name) for name in names]
    return compare(tasks, given["out"], chosen, progress=True)


@lab.command()
@_common("mnist_cnn", 256)
@click.option("--sparsity", default=0.9, show_default=True, help="Of each weight tensor, or of all by other methods.")
@click.option("--layer", "layers", multiple=True, help="conv1.weight=0.5: a sparsity for one layer; others stay whole.")
@click.option(
    "--method", default="fine-grained", show_default=True, help="A pruning method, or your own package.module:function."
)
@click.option("--layer-by-layer", is_flag=True, help="Prune and retrain one layer after another.")
@click.option("--training", default="", help="epochs=5,optimiser=adadelta,learning_rate=1.0")
@click.option("--tuning", default="", help="epochs=2,optimiser=sgd,learning_rate=0.1")
@click.option("--look-at", default="", help="The convolution whose kernels are drawn (default: the first).")
@click.option("--kernels", default=64, show_default=True, help="How many kernels at most.")
def finetune(
    sparsity: float, layers: tuple[str, ...], method: str, layer_by_layer: bool, training: str, tuning: str,
    look_at: str, kernels: int, **given: Any,
) -> Results:  # fmt: skip
    """Prune a trained network, fine-tune it with the mask held, and look at each stage."""
    from contest.lab import FineTune, finetune

    default = FineTune()
    each = tuple((name.partition("=")[0], _numbers(name.partition("=")[2])[0]) for name in layers if "=" in name)
    if len(each) != len(layers):
        raise UsageError(f"--layer is {', '.join(layers)}; it must be name=sparsity, such as conv1.weight=0.5")
    chosen = FineTune(
        sparsity=sparsity, layers=each, method=method, layer_by_layer=layer_by_layer, look_at=look_at, kernels=kernels,
        training=_training(training, default.training), tuning=_training(tuning, default.tuning), seed=given["seed"],
    )  # fmt: skip
    return finetune(_task(given), given["out"], chosen, progress=True)


@lab.command()
@_common("mnist_cnn", 256)
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
@click.option("--training", default="", help="epochs=2,optimiser=adam,learning_rate=0.001")
def sensitivity(sparsities: str, groups: tuple[str, ...], method: str, training: str, **given: Any) -> Results:
    """Prune each layer, or named group of layers, alone."""
    from contest.lab import Sensitivity, Training, sensitivity

    named = tuple((group.partition("=")[0], _names(group.partition("=")[2])) for group in groups)
    if not all(members for _, members in named):
        raise UsageError(f"--group is {', '.join(groups)}; it must be name=layer,layer")
    chosen = Sensitivity(_numbers(sparsities), named, method, _training(training, Training()), given["seed"])
    return sensitivity(_task(given), given["out"], chosen, progress=True)


@lab.command()
@_common("mnist_cnn", 256)
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
    sparsities: str, removed: str, method: str, training: str, tuning: str, batch: int, runs: int, warmup: int,
    **given: Any,
) -> Results:  # fmt: skip
    """Run pruned networks in PyTorch and in ONNX Runtime: latency, agreement, size."""
    from contest.lab import Deploy, deploy

    default = Deploy()
    chosen = Deploy(
        _numbers(sparsities), _numbers(removed), method, _training(training, default.training),
        _training(tuning, default.tuning), batch, runs, warmup, given["seed"],
    )  # fmt: skip
    return deploy(_task(given), given["out"], chosen, progress=True)


@lab.command()
@_common("mnist_cnn", 256)
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
def quantise(sparsities: str, bits: str, orders: str, method: str, training: str, tuning: str, **given: Any) -> Results:
    """Prune and quantise on a grid, together and one after the other."""
    from contest.lab import Quantise, quantise

    default = Quantise()
    chosen = Quantise(
        sparsities=_numbers(sparsities), bits=tuple(int(b) for b in _numbers(bits)), method=method, seed=given["seed"],
        orders=_names(orders),  # type: ignore[arg-type]  # checked there
        training=_training(training, default.training), tuning=_training(tuning, default.tuning),
    )  # fmt: skip
    return quantise(_task(given), given["out"], chosen, progress=True)


@lab.command()
def methods() -> None:
    """List the pruning methods."""
    from rich.console import Console
    from rich.table import Table

    from contest import pruning

    table = Table("Method", "What it does", "Made for", "Uses data", "Paper")
    for name, found in sorted(pruning.methods().items()):
        made_for = "an untrained network" if found.when == "before" else "a trained network"
        table.add_row(name, found.what, made_for, "yes" if found.uses_data else "no", found.paper)
    Console().print(table)


@lab.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The page, such as docs/lab-results.md.")
def results(folders: tuple[Path, ...], out: Path) -> None:
    """Write the results in FOLDERS as one page, beside the published figures."""
    from rich.console import Console

    from contest.lab.results.published import write

    Console().print(f"{write(folders, out)}")


@lab.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder, such as docs/methods.")
def gallery(out: Path) -> None:
    """Draw the pictures of the pruning methods' pages."""
    from rich.console import Console

    from contest.lab.results.gallery import gallery

    for path in gallery(out):
        Console().print(f"{path}")
