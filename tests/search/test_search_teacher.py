"""The teacher of a study, with the real trainer on the bundled digits: trained once, cached, given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from contest.candidate import Candidate, Recipe
from contest.datasets import Images
from contest.errors import UsageError
from contest.model_file import load
from contest.training import load_teachers
from contest.zoo import DIRECTORY, teacher_files
from search.commands import search
from search.study.settings import Settings
from search.trainers import teacher
from search.trainers.pipeline import PipelineTrainer
from search.workers.worker import open_study

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
    settings = Settings(dataset="digits", rule="digits", **{"teacher_epochs": 2.0, **changes})  # type: ignore[arg-type]
    return PipelineTrainer(settings, directory, device="cpu")


@pytest.fixture
def small_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real teacher is several times wider: half a minute of a core."""
    real = teacher.teacher_candidate

    def narrow(settings: Settings, *, device: str) -> Candidate:
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
    answers = [next((home / "teacher").glob("answers-*.pt")) for home in (directory, given)]
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--taught-epochs", "2"], "nobody who answers"),
        (["--taught-epochs", "2", "--teacher-epochs", "2", "--budget", "1h"], "leave one of them out"),
    ],
)
def test_taught_epochs_need_a_teacher_and_time_of_their_own(options: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        CliRunner().invoke(search, [*SMALL, *options, "--study", str(tmp_path)], catch_exceptions=False)


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
