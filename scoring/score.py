"""Score a file, a user's module, or an architecture by name. The library twin of `contest score`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contest.errors import ContestError, RefusedError, UsageError
from contest.untrusted import whole_file
from scoring.costs import Costs, Examination
from scoring.report import Report, make_report, with_holdout
from scoring.rules import DEFAULT, Rule, load_rule, rules_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from contest.candidate import Architecture, Bits
    from contest.datasets import Images


def score_file(
    path: Path | str,
    *,
    images: Images | None = None,
    rule: str | Rule = DEFAULT,
    trust: bool = False,
    holdout: Images | None = None,
    classes: Sequence[str] = (),
    details: bool = False,
    minimum_level: str | None = None,
    told: Callable[[float], None] | None = None,
    looked: bool = False,
) -> Report:
    """The report of a model file (.pt, .safetensors, .onnx).

    Args:
        images: the test set; without it the accuracy is None.
        rule: by name, by path of a TOML file, or as it is.
        trust: open the file in this process instead of the isolated child. Only for files of your own.
        holdout: a private set; the report shows its accuracy and the gap to `images`.
        classes: names of the classes, for `details` (per-class table and confusion matrix).
        minimum_level: refuse to go on below this level of isolation.
        told: gets the part of the images that is done, 0 to 1, again and again.
        looked: the gate was asked already, in a process that need not import torch to refuse junk.

    Raises:
        RefusedError: the file is malformed, hostile or not one that the contest accepts.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    chosen = load_rule(rule) if isinstance(rule, str) else rule
    with whole_file(path) as whole:
        file: dict[str, Any] = {"name": path.name, "bytes": whole.stat().st_size, "sha256": sha256(whole)}
        found, file["isolation"] = examine_file(
            whole, _sets(images, holdout), trust=trust, minimum_level=minimum_level, told=told, looked=looked
        )
    return _reported(found, images, holdout, chosen, classes, details, file)


def examine_file(
    path: Path,
    sets: Sequence[Images | None],
    *,
    trust: bool = False,
    minimum_level: str | None = None,
    told: Callable[[float], None] | None = None,
    looked: bool = False,
) -> tuple[list[Examination], str]:
    """(costs and logits of a file for each set of images, the level of isolation that they were found at).

    sets: None stands for the costs alone.
    """
    if trust:
        from scoring.examine import examine
        from scoring.readers.read import read

        try:
            subject = read(path, None if sets[0] is None else sets[0].shape)
            return [examine(subject, None if one is None else one.pixels, told=told) for one in sets], "none"
        except ContestError:
            raise
        except Exception as error:  # what the isolated child says in the same words
            raise RefusedError(f"the network cannot be examined: {type(error).__name__}: {error}") from error
    from scoring.sandbox import look_isolated, run_isolated

    if not looked:
        look_isolated(path, minimum_level=minimum_level)
    pixels = [None if one is None else one.pixels.numpy() for one in sets]
    answers = [run_isolated(path, one, minimum_level=minimum_level, told=told) for one in pixels]
    return [answer.examination for answer in answers], answers[-1].level


def score_module(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    images: Images | None = None,
    rule: str | Rule = DEFAULT,
    holdout: Images | None = None,
    classes: Sequence[str] = (),
    details: bool = False,
    notes: Sequence[str] = (),
    declared: Mapping[str, int] | None = None,
    told: Callable[[float], None] | None = None,
) -> Report:
    """The report of a module of your own, in this process.

    told: gets the part of the images that is done, 0 to 1, again and again.
    notes: what else the report is to say. declared: bits by layer, of weights that are stored as floats and lie on a
    grid of so few (verified).
    """
    from scoring.examine import examine
    from scoring.readers.user_module import subject_of_user_module

    subject = subject_of_user_module(model, image_shape, notes, declared)
    chosen = load_rule(rule) if isinstance(rule, str) else rule
    sets = _sets(images, holdout)
    found = [examine(subject, None if one is None else one.pixels, told=told) for one in sets]
    return _reported(found, images, holdout, chosen, classes, details, {"isolation": "none"})


def compared(
    network: Path | nn.Module,
    images: Images | None,
    rule: Rule,
    *,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    trust: bool = False,
    looked: bool = False,
) -> tuple[Report, NDArray[np.bool_] | None]:
    """The report of a file or a module, and for each image whether its class is right."""
    if isinstance(network, Path):
        with whole_file(network) as whole:
            (examination,), level = examine_file(whole, [images], trust=trust, looked=looked)
        file = {"name": network.name, "isolation": level}
    else:
        from scoring.examine import examine
        from scoring.readers.user_module import subject_of_user_module

        subject, file = subject_of_user_module(network, image_shape), {"isolation": "none"}
        examination = examine(subject, None if images is None else images.pixels)
    report = _reported([examination], images, None, rule, (), False, file)
    predictions = examination.predictions
    return report, None if images is None or predictions is None else predictions == images.labels.numpy()


def score_costs(costs: Costs, rule: str | Rule = DEFAULT, *, file: dict[str, Any] | None = None) -> Report:
    """The report of a costs table alone: no accuracy, not rankable."""
    chosen = load_rule(rule) if isinstance(rule, str) else rule
    return make_report(Examination(costs), chosen, rules_of(chosen.dataset), file=file)


def architecture_costs(
    architecture: Architecture,
    bits: Bits | None = None,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    *,
    normalise: bool = True,
) -> Costs:
    """Costs of an architecture without weights, in milliseconds: nothing is computed.

    The layers are taken to be quantised as `bits` says, every input by a quantiser of its own with one scale.
    normalise: with the image normalisation that networks of this project contain (a number for each of its
    multipliers and shifts); False gives the bare architecture, as the literature counts it.
    """
    from scoring.readers.architecture import planned_costs

    return planned_costs(architecture, bits, image_shape, classes, normalise)


def sha256(path: Path) -> str:
    """Hash of a file, in hexadecimal; of an ONNX file with its weights beside it, of both in one."""
    with whole_file(path) as whole, whole.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sets(images: Images | None, holdout: Images | None) -> list[Images | None]:
    """The sets to examine a network on; without any, the costs alone."""
    return [one for one in (images, holdout) if one is not None] or [None]


def _reported(
    found: list[Examination],
    images: Images | None,
    holdout: Images | None,
    rule: Rule,
    classes: Sequence[str],
    details: bool,
    file: dict[str, Any],
) -> Report:
    first = found[0] if images is not None else replace(found[0], logits=None, reordered=None, repeatable=None)
    labels = None if images is None else images.labels.numpy()
    report = make_report(
        first, rule, rules_of(rule.dataset), labels=labels, classes=classes, details=details, file=file
    )
    if holdout is not None:
        report = with_holdout(report, found[-1], holdout.labels.numpy())
    return report
