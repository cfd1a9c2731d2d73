"""What `contest search` was asked for, as the settings of a study: of a new one, or of one that goes on."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from contest.errors import UsageError, command
from contest.files import cache_folder, why_unwritable
from contest.zoo import parent_files, teacher_files
from search.policy.budget import parse_duration
from search.space import read_space
from search.study.settings import StudySettings
from search.study.study import new_identity

BUNDLED_FOR = "cifar10"
"""The data set of the teacher and the float parents of this package."""
DEFAULT_EPOCHS = {"digits": (8.0, 30.0), "mnist": (4.0, 12.0)}
"""Epochs of a study for each of its trials, by data set; the second is kept for studies of older versions."""


def fresh(directory: Path, options: dict[str, Any]) -> StudySettings:
    """The settings of a new study. Raises UsageError if the directory holds one already."""
    from scoring.commands import rule_of
    from scoring.rules import load_rule

    if (directory / "study.json").exists():
        raise UsageError(f"{directory} holds a study: go on with --resume, or choose another --study directory")
    _check_end(options)
    dataset = options["dataset"]
    budget_s = parse_duration(options["budget"]) if options["budget"] else None
    rule = rule_given(options["rule"]) if options["rule"] else rule_of(dataset)
    explore, refine = (
        parse_epochs(options["epochs"]) if options["epochs"] else DEFAULT_EPOCHS.get(dataset, (10.0, 40.0))
    )
    changes = read_space(options["space_file"]) if options["space_file"] else {}
    if options["family"] and "family" in options["fixed"]:
        raise UsageError(f"--family {options['family']} and --fix family=... say the same twice: leave one of them out")
    if options["target_score"] is not None and options["objective"] != "target":
        raise UsageError(
            f"--target-score {options['target_score']:g} is for --objective target, and this is --objective "
            f"{options['objective']}: say --objective target too, or leave it out"
        )
    if options["family"]:
        changes["family"] = [name.strip() for name in options["family"].split(",")]
    changes.update(options["fixed"])
    return StudySettings(
        identity=new_identity(directory),
        dataset=dataset,
        data=str(options["data"].resolve()) if options["data"] else None,
        rule=rule,
        threshold=options["threshold"] if options["threshold"] is not None else load_rule(rule).threshold,
        objective=options["objective"],
        target_score=options["target_score"],
        sampler=options["sampler"],
        seed=options["seed"],
        trials=options["trials"] or (None if budget_s or options["images"] else 20),
        images=options["images"],
        float_epochs=refine if options["epochs"] and "/" in options["epochs"] else 0.0,
        budget_s=budget_s,
        explore_epochs=explore,
        refine_epochs=refine,
        teachers=tuple(str(path.resolve()) for path in _teachers(options)),
        answers=str((options["teacher_cache"] or _answers_folder(directory)).resolve()),
        parents=tuple(str(path.resolve()) for path in parent_files(options["parents"] or _bundled(dataset))),
        starts=tuple(str(path.resolve()) for path in options["starts"]),
        teacher_epochs=options["teacher_epochs"],
        taught_epochs=options["taught_epochs"],
        finalists=options["finalists"],
        variants=options["variants"],
        seeds=options["seeds"],
        margin=options["margin"],
        space=changes,
        storage=options["storage"],
    )


def _bundled(dataset: str) -> tuple[str, ...]:
    """What comes with the package fits one data set."""
    return ("bundled",) if dataset == BUNDLED_FOR else ()


def _teachers(options: dict[str, Any]) -> list[Path]:
    trained = options["teacher_epochs"] > 0
    return teacher_files(options["teachers"] or (() if trained else _bundled(options["dataset"])))


def _answers_folder(directory: Path) -> Path:
    """The folder that all studies share; where it cannot be written, one in the study."""
    shared = cache_folder("answers")
    try:
        shared.mkdir(parents=True, exist_ok=True)
    except OSError:
        return directory / "teacher"
    return shared if why_unwritable(shared) is None else directory / "teacher"


FIXED = {
    "dataset": "--dataset",
    "data": "--data",
    "objective": "--objective",
    "target_score": "--target-score",
    "sampler": "--sampler",
    "seed": "--seed",
    "seeds": "--seeds",
    "epochs": "--epochs",
    "margin": "--margin",
    "threshold": "--threshold",
    "teachers": "--teacher",
    "parents": "--parents",
    "starts": "--start",
    "teacher_epochs": "--teacher-epochs",
    "taught_epochs": "--taught-epochs",
    "rule": "--rule",
    "space_file": "--space",
    "family": "--family",
    "fix": "--fix",
}
"""Options that say what a study is: its trials could not be compared if they changed on the way."""


def resumed(directory: Path, options: dict[str, Any]) -> StudySettings:
    """The settings of the study in the directory, with what was asked for now: more trials or time, other finalists.

    Raises UsageError for an option that cannot change.
    """
    settings = StudySettings.load(directory)
    if "float_epochs" not in json.loads((directory / "study.json").read_text()):
        raise UsageError(
            f"{directory} was made by a version without float parents: it can be reported, "
            f"{command('report', directory)}, "
            "but not continued; start a new study in another directory"
        )
    given: set[str] = options.get("given", set())
    different = [name for name in FIXED if name in given and not _is_as_before(name, settings, options)]
    if different:
        raise UsageError(
            f"{', '.join(FIXED[name] for name in different)} cannot change in a study that was begun: leave it out, or "
            "begin another with another --study directory. What can change: --trials, --images, --budget, --finalists, "
            "--storage, --workers, --device, --teacher-cache"
        )
    _check_end(options)
    changes: dict[str, Any] = {name: options[name] for name in ("finalists", "variants") if name in given}
    if options["trials"]:
        changes["trials"] = options["trials"]
    if options["images"]:
        changes |= {"images": options["images"], "budget_s": None}
    if options["budget"]:
        changes |= {"images": None, "budget_s": parse_duration(options["budget"])}
    if options["storage"]:
        changes["storage"] = options["storage"]
    if options["teacher_cache"]:
        changes["answers"] = str(options["teacher_cache"].resolve())
    return dataclasses.replace(settings, **changes)


def _check_end(options: dict[str, Any]) -> None:
    """A study's account is in images or in time. Raises UsageError where both are asked for."""
    if options["images"] and options["budget"]:
        raise UsageError(
            f"--images {options['images']} --budget {options['budget']}: a study spends training images or time, not "
            "both: leave one out"
        )


def _is_as_before(name: str, settings: StudySettings, options: dict[str, Any]) -> bool:
    """Whether an option says what the study does anyway."""
    if name == "rule":
        return rule_given(options["rule"]) == settings.rule
    if name == "epochs":
        return parse_epochs(options["epochs"]) == (settings.explore_epochs, settings.refine_epochs)
    if name == "teachers":
        return tuple(str(path.resolve()) for path in teacher_files(options["teachers"])) == settings.teachers
    if name == "parents":
        return tuple(str(path.resolve()) for path in parent_files(options["parents"])) == settings.parents
    if name == "starts":
        return tuple(str(path.resolve()) for path in options["starts"]) == settings.starts
    if name == "data":
        return str(options["data"].resolve()) == settings.data
    if name == "family":
        return [part.strip() for part in options["family"].split(",")] == settings.space.get("family")
    if name in ("space_file", "fix"):
        changes = read_space(options["space_file"]) if name == "space_file" else options["fixed"]
        return all(settings.space.get(key) == value for key, value in changes.items())
    return bool(getattr(settings, name) == options[name])


def rule_given(rule: str) -> str:
    """A rule's name as it is; a TOML file's path so that the study finds it from any folder."""
    return str(Path(rule).resolve()) if Path(rule).suffix == ".toml" else rule


def parse_epochs(text: str) -> tuple[float, float]:
    """`10` -> (10, 40); `10/30` -> (10, 30)."""
    try:
        explore, slash, refine = text.partition("/")
        epochs = float(explore), float(refine) if slash else 4 * float(explore)
    except ValueError as error:
        raise UsageError(f"--epochs {text}: write a number, or two as in 10/40") from error
    if not (0 < epochs[0] < math.inf and 0 <= epochs[1] < math.inf):
        raise UsageError(f"--epochs {text}: epochs are a number above 0, such as 10, or two as in 10/40")
    return epochs
