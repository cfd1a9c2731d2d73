"""Options are checked before anything is written; a study is itself wherever it lies; what cannot change says so."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fake_trainer import FakeTrainer, enqueue_random

from contest.errors import UsageError
from search.commands import default_options, parse_fixed, search
from search.options import fresh, resumed
from search.space import make_space
from search.study.settings import StudySettings
from search.study.storage import open_storage, storage_url
from search.study.study import Study, new_identity
from search.trainers.pipeline import price_after
from search.worker import work_until_done

SPACE = {"family": ["resnet"]}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(search, ["--dataset", "digits", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fix", "weight_bits=abc"], "weight_bits = 'abc' makes no network"),
        (["--fix", "weight_bits=3,99"], "weight bits of '\\*' are 99"),
        (["--fix", "structured=1.5"], "must both lie in"),
        (["--fix", "shortcut=zip"], "in the default space it is projection, pad"),
        (["--fix", "colour=3"], "no dimension 'colour'"),
        (["--threshold", "90"], "--threshold 90: an accuracy lies between 0 and 1"),
        (["--budget", "0s"], "--budget"),
        (["--margin", "5"], "--margin 5: points of accuracy"),
        (["--objective", "target", "--target-score", "-1"], "--target-score -1: a score to stay below is above 0"),
        (["--teacher", "bundled"], "takes 3x32x32 images"),
        (["--rule", "nosuch.toml"], "neither one of"),
        (["--epochs", "many"], "--epochs many"),
        (["--images", "2000", "--budget", "60s"], "--images 2000 --budget 60s: .* leave one out"),
        (["--plan", "--resume"], "--plan --resume: a plan is of a new study; .* contest status"),
        (["--epochs", "inf"], "--epochs inf: epochs are a number above 0"),
        (["--epochs", "4/nan"], "--epochs 4/nan: epochs are a number above 0"),
        (["--fix", "weight_bits=3.7"], "weight_bits = 3.7 makes no network; .* it is whole numbers, 1, 2"),
        (["--fix", "symmetric=yes"], "symmetric = 'yes' makes no network; in the default space it is false, true"),
        (["--fix", "symmetric=3"], "symmetric = 3 makes no network"),
        (["--fix", "learning_rate=-1"], "learning_rate is -1.0; it must lie between 0"),
        (["--fix", "tune_share=2"], "tune_share = 2 must lie between 0 and 1"),
        (["--fix", "weight_bits=3", "--fix", "weight_bits=4"], "weight_bits is given twice: .* --fix weight_bits=3,4"),
        (["--fix", "family=thin", "--family", "resnet"], "--family resnet and --fix family=... say the same"),
        (["--objective", "target", "--target-score", "nan"], "--target-score nan: a score to stay below is above 0"),
        (["--target-score", "0.01"], "--target-score 0.01 is for --objective target"),
        (["--data", "/nonexist"], "--data /nonexist: no such folder; the digits come with"),
        (["--teacher-epochs", "-1"], "--teacher-epochs -1: .* above 0"),
        (["--teacher-epochs", "nan"], "--teacher-epochs nan: .* above 0"),
        (["--teacher-epochs", "inf"], "--teacher-epochs inf: .* above 0"),
        (["--fix", "distillation=0.9"], "distillation = 0.9 is .* no teacher: give one .--teacher FILE"),
    ],
)
def test_a_wrong_option_leaves_nothing_behind(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = call(*arguments, "--study", str(tmp_path / "s"), "--trials", "2")
    assert isinstance(result.exception, UsageError)
    assert re.search(message, str(result.exception))
    assert not (tmp_path / "s").exists()


def begun(directory: Path, storage: str | None = None, **more: object) -> Study:
    settings = StudySettings(
        identity=new_identity(directory),
        trials=3,
        sampler="random",
        rungs=(1.0,),
        explore_epochs=4.0,
        threshold=0.0,
        objective="pareto",
        space=SPACE,
        storage=storage,
        **more,  # type: ignore[arg-type]
    )
    settings.save(directory)
    study = opened(directory)
    enqueue_random(study, 3, 4.0)
    work_until_done(study, FakeTrainer())
    return study


def opened(directory: Path) -> Study:
    settings = StudySettings.load(directory)
    space = make_space((3, 32, 32), settings.space)
    return Study(directory, settings, space, open_storage(storage_url(settings.storage, directory)))


@pytest.mark.parametrize("older", [False, True])
def test_a_study_is_itself_when_it_is_renamed_or_copied(tmp_path: Path, older: bool) -> None:
    study = begun(tmp_path / "one")
    if older:  # the name in the database was that of the folder, and the settings had no identity
        study.close()
        shutil.rmtree(tmp_path / "one")
        StudySettings(trials=3, sampler="random", rungs=(1.0,), threshold=0.0, space=SPACE).save(tmp_path / "one")
        study = opened(tmp_path / "one")
        assert study.name == "one"
        enqueue_random(study, 3, 4.0)
        work_until_done(study, FakeTrainer())
    before = [(r.number, r.key, r.state) for r in study.records()]
    assert len(before) >= 3
    study.close()
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    (tmp_path / "one").rename(tmp_path / "renamed")
    for name in ("copy", "renamed"):
        again = opened(tmp_path / name)
        assert [(r.number, r.key, r.state) for r in again.records()] == before
        again.close()


def test_studies_of_one_name_on_one_database_are_two(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    mine, yours = begun(tmp_path / "me" / "digits", url), begun(tmp_path / "you" / "digits", url, seed=1)
    keys = [{r.key for r in study.records()} for study in (mine, yours)]
    assert mine.name != yours.name and keys[0] != keys[1]
    assert mine.claims.taken() == yours.claims.taken() == 3
    mine.close()
    yours.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dataset", "mnist"],
        ["--seed", "7"],
        ["--threshold", "0.8"],
        ["--epochs", "4/8"],
        ["--family", "thin"],
        ["--fix", "weight_bits=3"],
        ["--rule", "lab"],
        ["--objective", "pareto"],
    ],
)
def test_what_cannot_change_says_so(tmp_path: Path, arguments: list[str]) -> None:
    settings = StudySettings(dataset="digits", rule="digits", space=SPACE)
    settings.save(tmp_path)
    result = CliRunner().invoke(search, ["--resume", "--study", str(tmp_path), *arguments])
    assert isinstance(result.exception, UsageError)
    assert f"{arguments[0]} cannot change in a study that was begun" in str(result.exception)
    assert StudySettings.load(tmp_path) == settings


def test_images_and_time_take_each_others_place(tmp_path: Path) -> None:
    options = {**default_options(), "dataset": "digits", "budget": "45s"}
    fresh(tmp_path, options).save(tmp_path)
    counted = resumed(tmp_path, {**options, "budget": None, "images": 3000})
    assert (counted.images, counted.budget_s) == (3000, None)
    counted.save(tmp_path)
    timed = resumed(tmp_path, options)
    assert (timed.images, timed.budget_s) == (None, 45.0)
    with pytest.raises(UsageError, match="not both"):
        resumed(tmp_path, {**options, "images": 3000})


def test_the_score_of_a_rule_in_a_file(tmp_path: Path) -> None:
    """`--rule my.toml`: the report holds the score under the rule's name, not under the file's."""
    from contest.zoo import DIRECTORY
    from scoring.score import score_file

    (tmp_path / "my.toml").write_text(
        'name = "small"\ndataset = "cifar10"\nthreshold = 0.5\nparams_reference = 1e6\noperations_reference = 1e8\n'
    )
    model = sorted(DIRECTORY.glob("*.pt"))[0]
    found = price_after(model, str(tmp_path / "my.toml"))
    report = score_file(model, trust=True)
    assert found.params == pytest.approx(report.scores["lab"].params * 5.6)  # lab's references are 5.6e6 and 8.3e8
    assert found.ops == pytest.approx(report.scores["lab"].ops * 8.3)
    assert StudySettings(rule=str(tmp_path / "my.toml")).rule_name == "small"


def test_the_folder_of_answers_may_change(tmp_path: Path) -> None:
    StudySettings(dataset="digits", rule="digits", answers=str(tmp_path / "old")).save(tmp_path)
    options = {**default_options(), "given": {"teacher_cache"}, "teacher_cache": tmp_path / "new"}
    assert resumed(tmp_path, options).answers == str(tmp_path / "new")


@pytest.mark.parametrize("text", ["true", "True", "1"])
def test_on_and_off_are_written_as_one_likes(text: str) -> None:
    for changes in (parse_fixed((f"symmetric={text}",)), {"symmetric": text}, {"symmetric": True}):
        assert make_space((1, 8, 8), changes).dimensions["symmetric"].choices == (True,)
    assert make_space((1, 8, 8), parse_fixed(("symmetric=False,true",))).dimensions["symmetric"].choices == (
        False,
        True,
    )
