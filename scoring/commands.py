"""`contest score` and `contest convert`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contest.datasets.registry import facts
from contest.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    from contest.datasets import DataSet, Images
    from scoring.report import Report
    from scoring.rules import Rule


@click.command()
@click.argument("target")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--rule", help="lab, lab-macs, micronet, digits, ... or a .toml file [default: lab, or that of --dataset]."
)
@click.option("--dataset", help="Score by the first rule of that data set, such as digits, instead of --rule.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of the data set (else CONTEST_DATA, else download)."
)
@click.option("--no-accuracy", is_flag=True, help="Costs only: do not run the test set.")
@click.option("--details", is_flag=True, help="Accuracy of each class and the confusion matrix.")
@click.option(
    "--holdout",
    type=click.Path(path_type=Path),
    help="A private .npz with x_test and y_test: its accuracy and the gap.",
)
@click.option("--advise", is_flag=True, help="What each layer costs, and what changing it would gain.")
@click.option(
    "--chart", type=click.Path(path_type=Path), help="With --advise: write the chart (.html, .svg, .png, .pdf)."
)
@click.option("--trust", is_flag=True, help="Open the file in this process: only for files of your own.")
@click.option(
    "--arch", help="TARGET holds weights of a network of your own, built by package.module:factory. Runs its code."
)
@click.option("--declare", help="With --arch: bits of float weights on a grid, `conv1=3,fc=8` or `*=4`; verified.")
@click.option("--state-key", help="With --arch: which dictionary of weights in the file, where several fit.")
@click.option(
    "--bits",
    default="32",
    show_default=True,
    help="For an architecture by name: bits of weights and activations, `4` or `4/8`.",
)
@click.option("--image-shape", help="Channels, height and width, `3,224,224`; else those of the rule's data set.")
@click.option(
    "--classes", type=click.IntRange(1), help="Of an architecture by name; else those of the rule's data set."
)
@click.option(
    "--csv",
    "table",
    type=click.Path(path_type=Path),
    help="TARGET is a folder, or a list with a file a line: a row each, made at once; resumes where it broke off.",
)
@click.pass_context
def score(
    context: click.Context,
    target: str,
    as_json: bool,
    rule: str | None,
    dataset: str | None,
    data: Path | None,
    no_accuracy: bool,
    details: bool,
    holdout: Path | None,
    advise: bool,
    chart: Path | None,
    trust: bool,
    arch: str | None,
    declare: str | None,
    state_key: str | None,
    bits: str,
    image_shape: str | None,
    classes: int | None,
    table: Path | None,
) -> int:
    """Recompute the score of TARGET: a model file (.pt, .safetensors, .onnx), or an architecture by its name
    (`resnet18`, `timm/mobilenetv3_small_100`), which has costs but no accuracy; or, with --csv, a folder or a list.

    Exit codes: 0 scored and rankable (or costs of an architecture), 1 below the threshold, flagged or without
    accuracy, 2 refused, 3 usage, 4 internal.
    """
    from rich.console import Console

    from scoring.rules import load_rule

    rule = rule or (rule_of(dataset) if dataset else "lab")
    if table is not None:
        passed_on = {
            "--rule": rule,
            "--data": data,
            "--holdout": holdout,
            "--state-key": state_key,
            "--declare": declare,
            "--image-shape": image_shape,
        }
        options = [str(part) for name, value in passed_on.items() if value is not None for part in (name, value)]
        options += ["--no-accuracy"] if no_accuracy else []
        return _many(Path(target), table, arch, [*options, *(["--trust"] if trust else [])])
    chosen = load_rule(rule)
    console = Console(stderr=as_json)
    by_name = arch is None and not _is_file(target)
    with Console(stderr=True).status("") as status:  # (shows itself in a terminal only)
        if by_name:
            shape = images_of(chosen, image_shape, classes)
            status.update(f"counting {target} for images of {' x '.join(map(str, shape[0]))}")
            report = _architecture_report(target, bits, chosen, *shape)
        else:
            if arch is None and Path(target).is_file():
                status.update(f"reading what {Path(target).name} says of itself")
                look(Path(target), trust)
            status.update(f"loading the test set of {chosen.dataset}")
            tests = None if no_accuracy else test_set(chosen, data, console)
            private = _holdout(holdout) if holdout else None
            size = images_of(chosen, image_shape, classes or 1)[0] if arch else (0, 0, 0)
            doing = _doing(Path(target).name, tests, trust or arch is not None)
            status.update(doing)
            report = _file_report(
                Path(target),
                (arch, state_key, declare),
                size,
                chosen,
                tests,
                private,
                trust,
                details,
                lambda part: status.update(f"{doing}: {part:.0%}"),
            )
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1))
    else:
        from scoring.report_tables import show

        Console().print(show(report))
    if advise:
        _advise(report, chosen, console, chart)
    return 0 if report.rankable or by_name else 1


def _many(target: Path, table: Path, arch: str | None, options: list[str]) -> int:
    """Grade a folder or a list; 0 if every file has a score, 1 if some are refused."""
    from rich.console import Console

    from scoring.grading import entries, grade, show

    if not target.exists():
        raise UsageError(f"{target} is neither a folder nor a list of files")
    console = Console()

    def told(row: Mapping[str, str], number: int, count: int) -> None:
        what = row["score"] and f"{row['score']} at {row['accuracy'] or 'no'} accuracy"
        console.print(f"{number}/{count} {row['file']}: {row['status']} {what or row['reason']}", markup=False)

    rows = grade(entries(target, arch), table, options, told)
    console.print(show(rows))
    console.print(f"{table}: {len(rows)} rows", markup=False)
    return 1 if any(row["status"] in ("refused", "error") for row in rows) else 0


def look(path: Path, trust: bool) -> None:
    """Refuse junk before torch is imported, for the data or for the network."""
    from contest.untrusted import check_file, whole_file

    with whole_file(path) as whole:
        if trust:
            check_file(whole)
        else:
            from scoring.sandbox import look_isolated

            look_isolated(whole)


def rule_of(dataset: str) -> str:
    """The first rule of a data set. Raises UsageError where there is none."""
    from scoring.rules import built_in, load_rule, rules_of

    rules = rules_of(dataset)
    if not rules:
        near = did_you_mean(dataset, {load_rule(name).dataset for name in built_in()})
        raise UsageError(f"no rule is made for the data set '{dataset}'{near}: name one, or a TOML file, with --rule")
    return rules[0].name


def images_of(rule: Rule, image_shape: str | None, classes: int | None) -> tuple[tuple[int, int, int], int]:
    """The images' shape and the classes, as given or as known of the rule's data set.

    Raises UsageError where neither says them: costs depend on both.
    """
    known = facts(rule.dataset)
    shape = parse_shape(image_shape) if image_shape else known.image_shape
    classes = classes or known.number_of_classes
    if shape is None or classes is None:
        raise UsageError(
            f"rule '{rule.name}' is for the data set '{rule.dataset}', whose images are not known here: "
            "give --image-shape 3,32,32 and --classes 10 as they are"
        )
    return shape, classes


def _doing(name: str, tests: DataSet | None, here: bool) -> str:
    images = f" and running it on {len(tests.test):,} test images" if tests and tests.test else ""
    return f"measuring {name}{images}{'' if here else ', in an isolated process'}"


def _is_file(target: str) -> bool:
    path = Path(target)
    known = (".pt", ".safetensors", ".onnx", ".pth", ".pt2", ".pkl", ".ckpt", ".bin")
    return path.is_file() or path.suffix.lower() in known


def parse_shape(text: str) -> tuple[int, int, int]:
    """`3,32,32` as numbers."""
    try:
        channels, height, width = (int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--image-shape is '{text}'; it must be channels,height,width as in 3,32,32") from error
    return channels, height, width


def parse_bits(text: str) -> dict[str, int]:
    """`conv1=3,fc=8` as numbers by layer."""
    pairs = [part.rpartition("=") for part in text.split(",")]
    if not all(name and bits.isdigit() for name, _, bits in pairs):
        raise UsageError(f"--declare is '{text}'; it must be layer=bits,layer=bits as in conv1=3,fc=8, or *=4")
    return {name.strip(): int(bits) for name, _, bits in pairs}


def _architecture_report(name: str, bits: str, rule: Rule, shape: tuple[int, int, int], classes: int) -> Report:
    from contest.candidate import Bits
    from contest.networks import parse
    from scoring.score import architecture_costs, score_costs

    parts = bits.split("/")
    if not all(part.isdigit() for part in parts) or len(parts) > 2:
        raise UsageError(f"--bits is '{bits}'; it must be a number, or weights/activations as in 4/8")
    costs = architecture_costs(parse(name), Bits(int(parts[0]), int(parts[-1])), shape, classes, normalise=False)
    return score_costs(costs, rule, file={"name": name})


def _file_report(
    path: Path,
    code: tuple[str | None, str | None, str | None],
    shape: tuple[int, int, int],
    rule: Rule,
    tests: DataSet | None,
    private: Images | None,
    trust: bool,
    details: bool,
    told: Callable[[float], None],
) -> Report:
    from scoring.score import score_file, score_module

    images, classes = (tests.test, tests.classes) if tests else (None, ())
    arch, state_key, declare = code
    if arch is None:
        return score_file(
            path,
            images=images,
            rule=rule,
            trust=trust,
            holdout=private,
            classes=classes,
            details=details,
            told=told,
            looked=True,
        )
    from scoring.readers.user_module import load_module

    notes: list[str] = []
    model = load_module(arch, path, state_key=state_key, notes=notes)
    return score_module(
        model,
        shape,
        images=images,
        rule=rule,
        holdout=private,
        classes=classes,
        details=details,
        notes=notes,
        declared=parse_bits(declare) if declare else None,
        told=told,
    )


def test_set(rule: Rule, directory: Path | None, console: Any) -> DataSet | None:
    """The test set of the rule's data set; None, with a word about it, where it is not to be had."""
    from contest.datasets import load

    try:
        data = load(rule.dataset, directory)
    except DataError as error:
        if directory is not None:  # a folder that was named and does not hold it is a mistake; none at all need not be
            raise
        console.print(f"without accuracy: {error}", style="yellow", markup=False)
        return None
    return data if data.test is not None else None


def _holdout(path: Path) -> Images:
    """Images of an .npz: `x_test, y_test` or `x, y`; uint8 [N,H,W,C] or [N,H,W]."""
    import numpy as np
    import torch

    from contest.datasets import Images

    try:
        with np.load(path, allow_pickle=False) as content:
            names = ("x_test", "y_test") if "x_test" in content else ("x", "y")
            pixels, labels = content[names[0]], content[names[1]]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is no hold-out: an .npz with x_test and y_test is needed ({error})") from error
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or len(pixels) != len(labels) or not len(labels):
        raise DataError(f"{path}: x_test is {pixels.dtype} {pixels.shape}; uint8 images [N,H,W,C] are needed")
    channels_first = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    return Images(
        torch.from_numpy(np.ascontiguousarray(channels_first)), torch.from_numpy(labels.astype(np.int64).reshape(-1))
    )


def _advise(report: Report, rule: Rule, console: Any, chart: Path | None) -> None:
    from scoring.advice import advice, advice_chart, advice_table
    from scoring.costs import Costs

    found = advice(Costs.from_json(report.costs), rule)
    console.print(advice_table(found, rule))
    if chart is not None:
        advice_chart(found, rule, chart)
        console.print(f"chart: {chart}", markup=False)


@click.command()
@click.argument("weights", type=click.Path(path_type=Path), required=False)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--arch", help="Your network: package.module:factory. Its code is run.")
@click.option("--image-shape", default="3,32,32", show_default=True, help="Channels, height and width.")
@click.option("--declare", help="Bits of float weights that lie on a grid, `conv1=3,fc=8` or `*=4`; verified.")
@click.option("--state-key", help="Which dictionary of weights in the file, where several fit.")
def convert(
    weights: Path | None, out: Path, arch: str | None, image_shape: str, declare: str | None, state_key: str | None
) -> None:
    """Write a network from elsewhere as the checked ONNX file OUT, which scores exactly as the network does.

    WEIGHTS is a state dictionary (.pt, .pth, .safetensors) for --arch, with torch `prune` masks and half precision
    if it has them; or, without --arch, a model.pt of this project. Brevitas networks become QONNX.
    """
    from rich.console import Console

    from scoring.convert import convert_file

    declared = parse_bits(declare) if declare else None
    report = convert_file(
        weights, out, arch=arch, image_shape=parse_shape(image_shape), declared=declared, state_key=state_key
    )
    console = Console()
    console.print(f"{out.name}: {report.macs:,} MACs, {report.parameters:,} numbers stored", markup=False)
    for problem in report.problems:
        console.print(f"problem: {problem}", style="yellow", markup=False)
    for name in report.unknown_operations:
        console.print(f"the contest does not know this operation: {name}", style="yellow", markup=False)
