"""`contest train`: one candidate, from plain data to a model file; `pack` and `unpack`: the same file as bits."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from contest.candidate import Bits, Candidate, Recipe, number_epochs
from contest.datasets.registry import names_help
from contest.errors import UsageError, command

if TYPE_CHECKING:
    from torch import Tensor

    from contest.datasets import Images
    from contest.pipeline import Outcome

GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)
"""Where an option stands that somebody wrote: in the command, or in its --config."""


@click.command()
@click.argument("what")
@click.option("--dataset", default="cifar10", show_default=True, help=names_help())
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of the data set (else CONTEST_DATA, else download)."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("model.pt"), show_default=True, help="Model file.")
@click.option("--bits", default="32", show_default=True, help="Bits of weights and activations, `3` or `2/3`.")
@click.option("--edge-bits", type=int, help="Bits of the first and the last layer, where they differ.")
@click.option(
    "--number-bits",
    type=click.Choice(["4", "5", "6", "7", "8", "32"]),
    default="32",
    show_default=True,
    help="Bits of the multipliers and shifts that batch norms leave behind quantised convolutions.",
)
@click.option(
    "--symmetric",
    is_flag=True,
    help="Weights of b bits from -2^(b-1) to 2^(b-1), as the zeros are in a bitmask: 9 levels at 3 bits, 3 at 1.",
)
@click.option("--structured", type=float, default=0.0, help="p_s: fraction of weights in removed channels.")
@click.option("--unstructured", type=float, default=0.0, help="p_u: fraction of the unpruned network's weights.")
@click.option(
    "--ratios",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Instead of --unstructured, a fraction for each layer: the file that `contest lab sensitivity` writes.",
)
@click.option(
    "--pruning",
    default="magnitude",
    show_default=True,
    help="The method whose scores choose the zeros: see `contest lab methods`; options as in grasp:temperature=100.",
)
@click.option(
    "--channels",
    type=click.Choice(["l1", "l2", "bn", "random"]),
    default="l1",
    show_default=True,
    help="The importance by which --structured removes channels.",
)
@click.option("--train", "train_options", default="", help="Float recipe, `epochs=30,learning_rate=0.1`.")
@click.option("--tune", "tune_options", default="", help="Recipe after pruning and quantisation, likewise.")
@click.option(
    "--teacher",
    "teachers",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE|bundled",
    help="A model.pt whose predictions are distilled; given several times, the mean of their logits, or of all folds "
    "(--fold) the one that has not seen the image. `bundled`: the teacher of this package (CIFAR-10).",
)
@click.option(
    "--teacher-views",
    type=click.Choice(["1", "2", "6"]),
    help="Views of an image that a teacher's answer is the mean of: itself; and its mirror image; and both moved by a "
    "pixel two ways  [default: 2, with taught_epochs 1]",
)
@click.option(
    "--teacher-cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of teachers' answers, shared by trainings and studies  [default: --directory]",
)
@click.option(
    "--start",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A train.ckpt or tune.ckpt (of --directory) of a relative: weights whose name and shape agree begin as there.",
)
@click.option(
    "--fold",
    help="Leave this part of the training images out, 2/5 the second fifth; five such teachers answer for what they "
    "have not seen.",
)
@click.option("--all-images", is_flag=True, help="Train on the validation images too (a finalist's refit).")
@click.option("--seed", type=int, default=0, show_default=True, help="Everything random comes from it.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps (mps is untested).")
@click.option("--directory", type=click.Path(path_type=Path), help="Checkpoints; the same command goes on from them.")
def train(
    what: str,
    dataset: str,
    data: Path | None,
    out: Path,
    teachers: tuple[Path, ...],
    teacher_views: str | None,
    teacher_cache: Path | None,
    start: Path | None,
    fold: str | None,
    all_images: bool,
    device: str,
    directory: Path | None,
    **asked: Any,
) -> None:
    """Train and compress WHAT: an architecture (`resnet20`, `thin:widths=16-32-64,depths=2-2-2`) or a JSON file
    with a whole candidate, of which the options that are given change single parts."""
    from contest.datasets import ALL_IMAGES, load, split
    from contest.datasets.folds import Fold, without
    from contest.model_file import save
    from contest.pipeline import compress
    from contest.training import choose_device

    candidate = candidate_of(what, **asked)
    start = start or given_start(candidate, Path(what).parent)
    images = load(dataset, data)
    parts = split(images.train)
    training = images.train if all_images else parts.train
    left_out = None if fold is None else Fold.parse(fold)
    training = training if left_out is None else without(training, left_out)
    chosen = str(choose_device(device))
    teach = None
    if teachers:
        seen, cache = None if all_images else parts.sha256, teacher_cache or directory
        views = int(teacher_views) if teacher_views else None
        teach = taught(teachers, training, len(images.classes), seen, views=views, cache=cache, device=chosen)
    outcome = compress(
        candidate,
        training,
        None if all_images else parts.validation,
        image_shape=images.image_shape,
        classes=len(images.classes),
        device=chosen,
        directory=directory,
        teach=teach,
        start=start,
        progress=True,
        provenance={
            "data": images.name,
            "split_sha256": ALL_IMAGES if all_images else parts.sha256,
            **({} if left_out is None else {"fold": str(left_out)}),
        },
    )
    save(outcome.network, out)
    show(outcome, out, dataset)


def candidate_of(
    what: str,
    *,
    bits: str,
    edge_bits: int | None,
    number_bits: str,
    symmetric: bool,
    structured: float,
    unstructured: float,
    ratios: Path | None,
    pruning: str,
    channels: str,
    train_options: str,
    tune_options: str,
    seed: int,
) -> Candidate:
    """The candidate that the command asks for: that of a JSON file with changes, or one from the options alone."""
    from contest import networks
    from contest.pruning import read_ratios

    if Path(what).suffix == ".json":
        return changed(Candidate.read(Path(what)), given_options())
    return Candidate(
        networks.parse(what),
        dataclasses.replace(parse_bits(bits, edge_bits, int(number_bits)), symmetric=symmetric),
        structured,
        unstructured,
        parse_recipe(train_options, networks.recipe(what)),
        tuning(tune_options, Recipe(epochs=2.0, learning_rate=0.01, warmup_epochs=0.0), int(number_bits)),
        seed,
        pruning,
        channels,
        ratios=() if ratios is None else read_ratios(ratios),
    )


def taught(
    teachers: Iterable[Path],
    training: Images,
    classes: int,
    split_sha256: str | None,
    *,
    views: int | None,
    cache: Path | None,
    device: str,
) -> Callable[[Recipe], Tensor]:
    """What teachers answer for the training images, by the recipe that is trained with."""
    from contest.training import load_teachers, soft_labels
    from contest.zoo import teacher_files

    teacher = load_teachers(teacher_files(teachers), training, classes, split_sha256)

    def teach(recipe: Recipe) -> Tensor:
        return soft_labels(teacher, training, device=device, views=views, recipe=recipe, cache=cache, progress=True)

    return teach


def show(outcome: Outcome, out: Path, dataset: str) -> None:
    """What came out, stage by stage, and the command that scores it."""
    from rich.console import Console

    console = Console()
    for stage in outcome.stages:
        reached = "" if stage.validation_accuracy is None else f", validation {100 * stage.validation_accuracy:.2f} %"
        console.print(f"{stage.name}: {stage.epochs:g} epochs in {stage.seconds:.0f} s{reached}")
    if outcome.validation is not None:
        console.print(f"frozen network: validation {100 * outcome.validation.accuracy:.2f} %")
    now = command("score", out, "--dataset", dataset)
    console.print(f"{out}: {out.stat().st_size:,} bytes; now: {now}", soft_wrap=True, highlight=False, markup=False)


def given_options() -> dict[str, Any]:
    """The options of the running command that somebody wrote, in the command or in its --config."""
    context = click.get_current_context()
    return {name: value for name, value in context.params.items() if context.get_parameter_source(name) in GIVEN}


def changed(candidate: Candidate, given: Mapping[str, Any]) -> Candidate:
    """A candidate of a file with what options of `contest train` say of it."""
    from contest.pruning import read_ratios

    parts: dict[str, Any] = {
        n: given[n] for n in ("structured", "unstructured", "pruning", "channels", "seed") if n in given
    }
    for name in ("train", "tune"):
        if f"{name}_options" in given:
            parts[name] = parse_recipe(given[f"{name}_options"], getattr(candidate, name))
    if "ratios" in given:
        parts |= {"ratios": read_ratios(given["ratios"]), "unstructured": 0.0}
    elif "unstructured" in given:
        parts["ratios"] = ()
    bits, edge = candidate.bits, given.get("edge_bits")
    if "bits" in given:
        bits = dataclasses.replace(parse_bits(given["bits"], edge, bits.numbers), symmetric=bits.symmetric)
    elif edge is not None:
        bits = dataclasses.replace(bits, layers={**bits.layers, "first": (edge, 8), "last": (edge, edge)})
    if "number_bits" in given:
        bits = dataclasses.replace(bits, numbers=int(given["number_bits"]))
        parts["tune"] = tuning(given.get("tune_options", ""), candidate.tune, bits.numbers)
    if "symmetric" in given:
        bits = dataclasses.replace(bits, symmetric=given["symmetric"])
    return dataclasses.replace(candidate, bits=bits, **parts)


def tuning(text: str, base: Recipe, number_bits: int) -> Recipe:
    """`base` with what `--tune` says; numbers of less than 8 bits have epochs of their own, where nothing is said."""
    recipe = parse_recipe(text, base)
    if number_bits >= 8 or recipe.number_epochs or "number_epochs" in text:
        return recipe
    return dataclasses.replace(recipe, number_epochs=number_epochs(recipe.epochs))


def given_start(candidate: Candidate, folder: Path) -> Path | None:
    """The checkpoint from which a candidate of a search begins: `parent.ckpt` beside it, or a bundled one.

    None where it begins from noise. Raises UsageError where the checkpoint of its content is in neither place.
    """
    from contest.zoo import parent_files

    if not candidate.start:
        return None
    for path in (folder / "parent.ckpt", *parent_files()):
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest().startswith(candidate.start):
            return path
    raise UsageError(
        f"the candidate begins from a float network whose file has the sha256 {candidate.start}..., and it is neither "
        f"{folder}/parent.ckpt nor a bundled one: give it with --start"
    )


def parse_bits(text: str, edge: int | None = None, numbers: int = 32) -> Bits:
    """`3` or `2/3` (weights/activations) as Bits, with `edge` bits for the first and the last layer."""
    try:
        weights, _, activations = text.partition("/")
        layers = {} if edge is None else {"first": (edge, 8), "last": (edge, edge)}
        return Bits(int(weights), int(activations or weights), layers=layers, numbers=numbers)
    except ValueError as error:
        raise UsageError(f"bits '{text}': write one number, or weights/activations as in 2/3") from error


def parse_recipe(text: str, default: Recipe) -> Recipe:
    """`epochs=30,learning_rate=0.1` as a Recipe; what is not named stays as in `default`."""
    kinds = {field.name: type(getattr(default, field.name)) for field in dataclasses.fields(Recipe)}
    chosen: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in kinds:
            raise UsageError(f"a recipe has no '{name}'; it has {', '.join(kinds)}")
        try:
            chosen[name] = value == "true" if kinds[name] is bool else kinds[name](value)
        except ValueError as error:
            raise UsageError(f"'{value}' is no {kinds[name].__name__} for {name}") from error
    return dataclasses.replace(default, **chosen)


SUFFIX = ".packed"


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The packed file (default: MODEL with .packed).")
def pack(model: Path, out: Path | None) -> None:
    """Write MODEL (.pt or .safetensors) bit-packed: nonzero codes at their bits behind bitmasks."""
    from rich.console import Console

    from contest.model_file import load, packing

    target = out or model.with_suffix(SUFFIX)
    if target == model:
        raise UsageError(f"{target} is the model file itself; give another name with --out")
    size = packing.pack(load(model), target, model=model)
    Console().print(
        f"{target}: {size.payload_bytes:,} bytes of numbers and bitmasks ({size.payload_bytes / 4:,.0f} parameters of "
        f"32 bits), {size.header_bytes:,} bytes of header; {model.name} has {model.stat().st_size:,}",
        soft_wrap=True,
    )


@click.command()
@click.argument("packed", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="A .pt or .safetensors file (default: PACKED with the old ending)."
)
def unpack(packed: Path, out: Path | None) -> None:
    """Write the network of a PACKED file as a model file again, and say whether it is the same file byte for byte."""
    from rich.console import Console

    from contest.model_file import packing

    written, same = packing.unpack_file(packed, out)
    other = "the identical network (the packed file had other bytes: another ending, or another version wrote it)"
    what = "the very file that was packed" if same else other
    Console().print(f"{written}: {what}", soft_wrap=True, highlight=False, markup=False)
