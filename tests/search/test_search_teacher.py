"""The teacher of a study and its given parents, with the real trainer on the bundled digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from contest.candidate import Architecture, Bits, Candidate, Recipe
from contest.commands import train
from contest.datasets import Images
from contest.datasets import load as load_images
from contest.errors import UsageError
from contest.files import cache_folder
from contest.model_file import Network, load, thaw
from contest.training import evaluate, load_teachers
from contest.zoo import DIRECTORY, parent_files, teacher_files
from search.candidates import seeds, to_candidate
from search.commands import search
from search.given import adopt, nearest
from search.space import Space, make_space
from search.study.settings import StudySettings
from search.study.study import open_study
from search.trainers import teacher
from search.trainers.pipeline import PipelineTrainer

SMALL = [
    "--dataset",
    "digits",
    "--epochs",
    "4/4",
    "--finalists",
    "1",
    "--family",
    "resnet",
    "--fix",
    "structured=0",
    "--fix",
    "width=4",
    "--trials",
    "1",
]


def trainer_at(directory: Path, **changes: object) -> PipelineTrainer:
    settings = StudySettings(dataset="digits", rule="digits", **{"teacher_epochs": 2.0, **changes})  # type: ignore[arg-type]
    return PipelineTrainer(settings, directory, device="cpu")


@pytest.fixture
def small_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real teacher is several times wider: half a minute of a core."""
    real = teacher.teacher_candidate

    def narrow(settings: StudySettings, *, device: str) -> Candidate:
        from dataclasses import replace

        candidate = real(settings, device=device)
        options = {"depth": 8, "width": 8}
        return replace(candidate, architecture=replace(candidate.architecture, options=options))

    monkeypatch.setattr(teacher, "teacher_candidate", narrow)


@pytest.mark.usefixtures("small_teacher")
def test_the_teacher_is_trained_once_and_its_labels_outlive_a_damaged_cache(tmp_path: Path) -> None:
    first = trainer_at(tmp_path)
    assert first.teach()
    labels = first.soft_labels(Recipe())
    assert labels.shape == (first.images, 10)
    right = (labels.argmax(1) == first._train.labels).float().mean()
    assert right > 0.5  # it has learned, and the labels are in the order of the images
    model = tmp_path / "teacher" / "model.pt"
    written = model.stat().st_mtime_ns

    assert torch.equal(trainer_at(tmp_path).soft_labels(Recipe()), labels)  # another worker reads them
    (cache,) = (tmp_path / "teacher").glob("answers-*.pt")
    cache.write_bytes(b"half a file")
    assert torch.equal(trainer_at(tmp_path).soft_labels(Recipe()), labels)
    assert torch.equal(torch.load(cache, weights_only=True)["logits"], labels)
    assert model.stat().st_mtime_ns == written  # never trained again


@pytest.mark.usefixtures("small_teacher")
def test_a_teacher_interrupted_while_it_trains_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contest import pipeline

    real = pipeline.compress

    def interrupted(*args: object, **kwargs: object) -> object:
        def stop(epoch: object) -> None:
            raise KeyboardInterrupt

        return real(*args, **{**kwargs, "on_epoch": stop})  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "compress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer_at(tmp_path / "a").teach()
    assert (tmp_path / "a" / "teacher" / "train.ckpt").exists()
    monkeypatch.setattr(pipeline, "compress", real)
    first, second = (trainer_at(tmp_path / name).soft_labels(Recipe()) for name in "ab")
    assert torch.equal(first, second)


@pytest.mark.usefixtures("small_teacher")
def test_parents_and_children_learn_from_a_teacher(tmp_path: Path) -> None:
    directory = tmp_path / "taught"
    options = [*SMALL, "--teacher-epochs", "2", "--study", str(directory)]
    result = CliRunner().invoke(search, options, catch_exceptions=False)
    assert result.exit_code == 0 and "teacher" in result.output
    study = open_study(directory)
    refined = [r for r in study.records() if r.is_network]
    parents = [r for r in study.records() if r.stage == "parent"]
    study.close()
    assert refined and parents
    assert all(r.candidate.train.distillation > 0 < r.candidate.tune.distillation for r in refined)
    network = load(directory / "trials" / refined[0].key / "model.pt")
    assert Candidate.from_json(network.manifest.provenance["candidate"]).tune.distillation > 0

    given = tmp_path / "given"  # the same network, given as a file
    result = CliRunner().invoke(
        search,
        [*SMALL, "--teacher", str(directory / "teacher" / "model.pt"), "--study", str(given)],
        catch_exceptions=False,
    )
    assert result.exit_code == 0 and not (given / "teacher" / "model.pt").exists()
    answers = [next(home.glob("answers-*.pt")) for home in (directory / "teacher", cache_folder("answers"))]
    assert answers[0].name == answers[1].name, "the same question of the same teacher"
    assert torch.equal(*(torch.load(file, weights_only=True)["logits"] for file in answers))

    files = [str(directory / "teacher" / "model.pt"), str(directory / "trials" / refined[0].key / "model.pt")]
    alone = [trainer_at(tmp_path / str(n), teachers=(file,)).soft_labels(Recipe()) for n, file in enumerate(files)]
    together = trainer_at(tmp_path / "both", teachers=tuple(files)).soft_labels(Recipe())
    assert not torch.equal(*alone) and torch.allclose(together, (alone[0] + alone[1]) / 2, atol=1e-5)
    with pytest.raises(UsageError, match=r"another split.*validation"):
        trainer_at(tmp_path / "leak", teachers=tuple(files), split_seed=1).teach()


@pytest.mark.usefixtures("small_teacher")
def test_the_teacher_answers_for_whole_epochs_where_it_is_asked_to(tmp_path: Path) -> None:
    options = [*SMALL, "--teacher-epochs", "2", "--taught-epochs", "3", "--study", str(tmp_path)]
    result = CliRunner().invoke(search, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    study = open_study(tmp_path)
    (refined,) = [r.candidate for r in study.records() if r.is_network]
    study.close()
    assert refined.train.taught_epochs == refined.tune.taught_epochs == 3
    (file,) = (tmp_path / "teacher").glob("answers-*.pt")
    answers = torch.load(file, weights_only=True)["logits"]
    images, size = trainer_at(tmp_path).images, refined.train.batch_size
    assert answers.shape == (3, images // size * size, 10)


def test_taught_epochs_need_a_teacher(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nobody who answers"):
        CliRunner().invoke(search, [*SMALL, "--taught-epochs", "2", "--study", str(tmp_path)], catch_exceptions=False)


def test_who_has_no_teacher_trains_none_for_soft_labels(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nobody to learn from: give a teacher \(--teacher"):
        trainer_at(tmp_path, teacher_epochs=0.0).soft_labels(Recipe())


def test_the_bundled_teacher_teaches_cifar10_only(tmp_path: Path) -> None:
    (file,) = teacher_files(("bundled",))
    provenance = load(file).manifest.provenance
    assert file.stat().st_size <= 2_000_000
    assert provenance["split_sha256"].startswith("5091ca8a4d93ae19"), "the training images of split 0 alone"
    assert float(provenance["validation"].split()[0]) >= 93.4
    assert Candidate.from_json(provenance["float_candidate"]).architecture.family == "fast_teacher"
    with pytest.raises(UsageError, match=r"takes 3x32x32 images.*these are 1x8x8"):
        trainer_at(tmp_path, teachers=(str(file),)).teach()
    with pytest.raises(UsageError, match=r"none\.pt: no such file"):
        teacher_files(("none.pt",))


def test_a_teacher_that_does_not_say_which_images_it_saw_is_refused(tmp_path: Path) -> None:
    images = Images(torch.zeros(10, 3, 32, 32, dtype=torch.uint8), torch.arange(10))
    (silent,) = [path for path in DIRECTORY.glob("*.pt") if "split_sha256" not in load(path).manifest.provenance]
    with pytest.raises(UsageError, match=r"does not say which images it saw.*validation"):
        load_teachers([silent], images, 10, "5091ca8a")
    assert load_teachers([silent], images, 10, None), "nothing is validated"


# What a study is given to begin from.

GIVEN = ["--dataset", "digits", "--finalists", "1", "--images", "6000"]
NETWORK = "thin:stem_width=4,widths=6-10,depths=1-1,strides=2-2"


@pytest.fixture(scope="module")
def float_training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`contest train` of a small float network: `train.ckpt` in `f`, and `f.pt`."""
    folder = tmp_path_factory.mktemp("float")
    recipe = "epochs=6,batch_size=64,learning_rate=0.3,flip=false,crop=1"
    options = [
        "--dataset",
        "digits",
        "--train",
        recipe,
        "--directory",
        str(folder / "f"),
        "--out",
        str(folder / "f.pt"),
    ]
    result = CliRunner().invoke(train, [NETWORK, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder


def given_trainer(directory: Path) -> tuple[PipelineTrainer, Space]:
    trainer = trainer_at(directory, teacher_epochs=0.0)
    return trainer, make_space(trainer.image_shape, {})


def test_a_study_of_a_given_parent_trains_no_other_and_its_candidate_runs_in_contest_train(
    tmp_path: Path, float_training: Path
) -> None:
    directory = tmp_path / "s"
    parent = float_training / "f" / "train.ckpt"
    result = CliRunner().invoke(
        search, [*GIVEN, "--parents", str(parent), "--study", str(directory)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    study = open_study(directory)
    first, *others = study.records()
    study.close()
    assert (first.stage, first.why) == ("parent", "given") and first.result is not None
    assert first.result.images == 0 and first.result.accuracy > 0.8  # as good as it was, for nothing
    networks = [r for r in others if r.is_network]
    assert networks and all(r.candidate.start == first.candidate.start for r in networks)
    assert str(first.candidate.architecture) == "thin:depths=1-1,stem_width=4,strides=2-2,widths=6-10"
    (finalist,) = (directory / "finalists").iterdir()
    out = tmp_path / "again.pt"
    again = CliRunner().invoke(
        train, [str(finalist / "candidate.json"), "--dataset", "digits", "--out", str(out)], catch_exceptions=False
    )
    assert again.exit_code == 0, again.output
    assert torch.equal(
        evaluate(load(out), load_images("digits").train).predictions,
        evaluate(load(finalist / "model.pt"), load_images("digits").train).predictions,
    )


def test_a_stored_network_is_a_parent_that_computes_the_same(tmp_path: Path, float_training: Path) -> None:
    trainer, space = given_trainer(tmp_path)
    (from_file,) = adopt(float_training / "f.pt", tmp_path, trainer, space)
    (from_training,) = adopt(float_training / "f" / "train.ckpt", tmp_path, trainer, space)
    assert from_file.candidate.architecture == from_training.candidate.architecture
    assert from_file.trained and from_training.accuracy is not None
    network = load(float_training / "f.pt")
    images = load_images("digits").train
    x = images.pixels.float() / 255
    for bits in (Bits(), Bits(4, 8, numbers=8)):
        stored = network if not bits.quantised else _compressed(float_training, bits)
        thawed: nn.Module = thaw(stored, x[:200])
        with torch.no_grad():
            close = (thawed(x) - stored(x)).abs().mean() / stored(x).abs().mean()
        # Float: rounding. Of a quantised one the inputs are not rounded any more.
        assert close < (0.05 if bits.quantised else 1e-4)
        assert all(abs(float(n.running_var.mean()) - 1) > 1e-3 for n in thawed.modules() if hasattr(n, "running_var"))


def _compressed(folder: Path, bits: Bits) -> Network:
    from contest.datasets import split
    from contest.networks import parse
    from contest.pipeline import compress

    parts = split(load_images("digits").train)
    tune = Recipe(epochs=1, batch_size=64, learning_rate=0.01, warmup_epochs=0, flip=False, crop=1)
    candidate = Candidate(parse(NETWORK), bits, train=Recipe(epochs=0), tune=tune)
    shape = (1, 8, 8)
    made = compress(candidate, parts.train, image_shape=shape, classes=10, start=folder / "f" / "train.ckpt")
    return made.network


def test_what_saw_other_images_or_does_not_say_which_is_refused(tmp_path: Path, float_training: Path) -> None:
    trainer, space = given_trainer(tmp_path)
    state = torch.load(float_training / "f" / "train.ckpt", weights_only=True)
    wrong = {"other": {**state["provenance"], "split_sha256": "0" * 64}, "silent": {}}
    for name, provenance in wrong.items():
        torch.save({**state, "provenance": provenance}, tmp_path / f"{name}.ckpt")
    with pytest.raises(UsageError, match="was trained on other images"):
        adopt(tmp_path / "other.ckpt", tmp_path, trainer, space)
    with pytest.raises(UsageError, match="does not say which images it saw"):
        adopt(tmp_path / "silent.ckpt", tmp_path, trainer, space)
    with pytest.raises(UsageError, match="takes 3x32x32 images"):
        adopt(sorted(DIRECTORY.glob("*.pt"))[0], tmp_path, trainer, space)
    with pytest.raises(UsageError, match="neither a checkpoint nor a model"):
        (tmp_path / "text.pt").write_text("no network")
        adopt(tmp_path / "text.pt", tmp_path, trainer, space)
    with pytest.raises(UsageError, match=r"holds no study \(no study.json\); give a study's directory"):
        adopt(float_training, tmp_path, trainer, space)
    with pytest.raises(UsageError, match=r"b\.json: not a candidate: no text"):
        (tmp_path / "b.json").write_bytes(b"\xff\x00")
        adopt(tmp_path / "b.json", tmp_path, trainer, space)
    assert not (tmp_path / "parents").exists()


def test_a_candidate_and_a_study_are_starts(tmp_path: Path, float_training: Path) -> None:
    trainer, space = given_trainer(tmp_path / "other")
    recipe = Candidate(Architecture("resnet", {"widths": (4, 6, 8), "depths": (1, 1, 1)}), Bits(3, 3), seed=5)
    (tmp_path / "mine.json").write_text(recipe.to_json())
    (given,) = adopt(tmp_path / "mine.json", tmp_path, trainer, space)
    assert (
        not given.trained and given.candidate.architecture == recipe.architecture and given.values["family"] == "resnet"
    )
    directory = tmp_path / "s"
    options = ["--parents", str(float_training / "f" / "train.ckpt"), "--start", str(tmp_path / "mine.json")]
    result = CliRunner().invoke(search, [*GIVEN, *options, "--study", str(directory)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    study = open_study(directory)
    asked = [r for r in study.records() if r.why == "given"]
    study.close()
    assert [r.candidate.architecture.family for r in asked] == ["thin", "resnet"]
    assert all(r.at_end for r in asked)
    of_study = adopt(directory, tmp_path, trainer, space)
    assert of_study and all(one.trained for one in of_study)
    assert {str(one.candidate.architecture) for one in of_study} <= {str(r.candidate.architecture) for r in asked}


def plan_of(directory: Path, *options: str) -> str:
    result = CliRunner().invoke(search, [*GIVEN, *options, "--plan", "--study", str(directory)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_plan_is_of_what_the_study_is_given(tmp_path: Path, float_training: Path) -> None:
    mine = Candidate(
        Architecture("resnet", {"widths": (6, 6, 8), "depths": (1, 1, 1)}), train=Recipe(learning_rate=0.3)
    )
    (tmp_path / "mine.json").write_text(mine.to_json())
    assert f"expected: {mine.architecture}" in plan_of(tmp_path / "s", "--start", str(tmp_path / "mine.json"))
    trainer, space = given_trainer(tmp_path)
    (one,) = adopt(float_training / "f.pt", tmp_path, trainer, space)
    (same,) = adopt(float_training / "f" / "train.ckpt", tmp_path, trainer, space)
    assert one.accuracy is not None and same.accuracy is not None
    assert one.accuracy == pytest.approx(same.accuracy, abs=0.03)
    said = plan_of(tmp_path / "s", "--start", str(float_training / "f.pt"))
    assert f"expected: {one.candidate.architecture}" in said and "probability of 0 %" not in said


def test_a_candidates_settings_are_those_of_the_nearest_point() -> None:
    space = make_space((1, 8, 8), {})
    tune = Recipe(epochs=2.0, learning_rate=0.005)
    bits = Bits(6, 6, layers={"first": (8, 8), "last": (4, 4)}, numbers=32, symmetric=True)
    mine = Candidate(Architecture("thin", {"widths": (4, 8), "depths": (1, 1)}), bits, unstructured=0.2, tune=tune)
    values, _ = nearest(mine, space)
    expected = {
        "weight_bits": 6,
        "activation_bits": 6,
        "first_bits": 8,
        "last_bits": 4,
        "number_bits": 32,
        "symmetric": True,
        "sparsity": 0.2,
        "structured": 0.0,
        "tune_learning_rate": 0.005,
    }
    assert {name: values[name] for name in expected} == expected
    as_float, _ = nearest(Candidate(mine.architecture, tune=tune), space)
    assert as_float["weight_bits"] == 3 and as_float["tune_learning_rate"] == 0.04, "the starting point's"


def test_what_compresses_a_candidate_is_read_from_it_again() -> None:
    """Of starting points: all but the bits of single layers, where other settings give the same."""
    for shape in ((3, 32, 32), (1, 8, 8)):
        space = make_space(shape, {})
        for point in seeds(space):
            made = to_candidate(point, epochs=10.0)
            values, exact = nearest(made, space)
            assert exact
            again = to_candidate(values, epochs=10.0)
            assert (again.bits, again.unstructured, again.structured) == (made.bits, made.unstructured, made.structured)
            assert again.tune.learning_rate == made.tune.learning_rate


def test_the_bundled_parents_lie_in_the_space() -> None:
    space = make_space((3, 32, 32), {})
    for path in parent_files():
        made = Candidate.from_json(torch.load(path, weights_only=True)["provenance"]["candidate"])
        values, exact = nearest(made, space)
        assert exact and values["thin_block"] == "inverted"
        assert not nearest(made, make_space((3, 32, 32), {"width": [4, 8]}))[1]


def test_answers_of_a_given_teacher_are_shared(tmp_path: Path, float_training: Path) -> None:
    files = {"teachers": (str(float_training / "f.pt"),), "teacher_epochs": 0.0, "answers": str(tmp_path / "answers")}
    first, second = (trainer_at(tmp_path / name, **files) for name in "ab")
    assert first.answering_s() > 0
    labels = first.soft_labels(Recipe())
    assert second.answering_s() == 0
    assert torch.equal(second.soft_labels(Recipe()), labels)
    assert len(list((tmp_path / "answers").iterdir())) == 1 and not (tmp_path / "b" / "teacher").exists()
