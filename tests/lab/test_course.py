"""Labs as files: run, written as notebooks that run, reported and joined for a class."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from contest.cli import cli
from contest.errors import UsageError
from contest.lab import course
from contest.lab.notebook import write_notebook
from contest.lab.results import figures, tables
from contest.lab.results import report as collecting
from contest.lab.results.report import Results
from contest.lab.training import train

LAB = """
title = "A small lab"
introduction = "Digits."
[task]
model = "mnist_fc:hidden=16"
dataset = "digits"
train_images = 200
[[steps]]
title = "By hand"
code = ["model = task.new(0)\\nprint(pruning.coverage(model).sentence())"]
questions = ["How many?"]
[[steps]]
title = "Ten rounds"
name = "rounds"
experiment = "repeated"
questions = ["Where does it collapse?"]
[steps.options]
rounds = 3
variants = ["none", "kept"]
latency_runs = 2
[steps.options.training]
epochs = 1
[steps.quick.options]
rounds = 1
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["lab", *arguments])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lab.toml"
    path.write_text(LAB)
    return path


def test_a_class_runs_a_file_and_the_teacher_joins_it(file: Path, tmp_path: Path) -> None:
    folders = []
    for who in ("ada", "grace"):
        folder = tmp_path / who
        assert run("run", str(file), "--quick", "--out", str(folder)).exit_code == 0
        folders.append(str(folder))
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert page.count('class="answer"') == 2 and "Where does it collapse?" in page and "<svg" in page
        assert "Hyperparameters" in page and "processor" in page and "training: learning rate" in page
    csv = tmp_path / "class.csv"
    result = run("collect", *folders, "--csv", str(csv), "--table", "none")
    assert result.exit_code == 0, result.exception
    joined = pd.read_csv(csv)
    assert set(joined["who"]) == {"ada", "grace"} and set(joined["step"]) == {"rounds"}
    accuracy = joined[(joined["table"] == "none") & (joined["column"] == "Accuracy (%)") & (joined["row"] == 0)]
    assert len(accuracy) == 2 and accuracy["value"].astype(float).nunique() == 1  # the same seed
    assert "rounds: none" in result.output
    assert isinstance(run("collect", *folders, "--table", "nothing").exception, UsageError)


def test_a_results_configuration_runs_again(file: Path, tmp_path: Path) -> None:
    run("run", str(file), "--quick", "--out", str(tmp_path / "one"))
    config = tmp_path / "one" / "rounds" / "config.json"
    result = run("run", str(config), "--out", str(tmp_path / "two"))
    assert result.exit_code == 0, result.exception
    assert json.loads((tmp_path / "two" / "config.json").read_text()) == json.loads(config.read_text())
    columns = ["Sparsity (%)", "Accuracy (%)"]
    one, two = (pd.read_csv(tmp_path / p / "tables" / "kept.csv")[columns] for p in ("one/rounds", "two"))
    pd.testing.assert_frame_equal(one, two)


def test_a_labs_page_is_written_again_with_what_is_finished(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    run("run", str(file), "--quick", "--out", str(folder))
    before = (folder / "report.html").read_text(encoding="utf-8")
    assert "pruning.coverage(model)" in before  # the step's code, to be read
    (folder / "report.html").unlink()
    assert run("report", str(folder)).exit_code == 0
    again = (folder / "report.html").read_text(encoding="utf-8")
    assert again.count("<figure>") == before.count("<figure>") > 3 and again.count('class="answer"') == 2
    moved = folder.rename(tmp_path / "ada")
    (moved / "rounds" / "results.json").unlink()
    assert run("report", str(moved)).exit_code == 0
    assert "<figure>" not in (moved / "report.html").read_text(encoding="utf-8")


def test_students_whose_folders_have_one_name_are_kept_apart(tmp_path: Path) -> None:
    for who, value in (("ada", 90.0), ("grace", 94.0)):
        page = Results(tmp_path / who / "results", who, "", {"experiment": "repeated", "task": "t", "seed": 0}, {})
        page.add_table("none", "Accuracy", pd.DataFrame({"Accuracy (%)": [value]}))
        page.finish()
    folders = [tmp_path / who / "results" for who in ("ada", "grace")]
    found = collecting.collect(folders)
    assert set(found["."]) == {"ada/results", "grace/results"}
    assert collecting.class_means(found, "none")["."]["Accuracy (%)"].tolist() == [92.0]
    with pytest.raises(UsageError, match="given twice"):
        collecting.collect([folders[0], folders[0]])


def test_a_class_mean_is_everybodys_also_where_somebody_ran_more() -> None:
    """One with more rounds, or with several seeds, once made the first student's table the class's mean."""
    ada = pd.DataFrame({"Iteration": [0, 1], "Accuracy (%)": [90.0, 80.0], "Empty layers": ["none", "none"]})
    several = {"Iteration": [0, 1, 2], "Accuracy (%)": [94.0, 84.0, 50.0], "Accuracy (%) ±": [1.0, 1.0, 1.0]}
    grace = pd.DataFrame({**several, "Empty layers": ["none", "fc", "fc"]})
    mean = tables.over_everybody([ada, grace])
    assert mean["Accuracy (%)"].tolist() == [92.0, 82.0, 50.0]
    assert mean["Accuracy (%) ±"].tolist() == [pytest.approx(8**0.5), pytest.approx(8**0.5), None]
    assert mean["Results"].tolist() == [2, 2, 1]
    assert mean["Empty layers"].tolist() == ["none", "none / fc", "fc"]
    assert tables.as_text(mean)["Accuracy (%)"].tolist() == ["92.00 ± 2.83", "82.00 ± 2.83", "50.00"]
    twice = pd.DataFrame({"Method": ["snip", "snip"], "Epoch": [1, 2], "Loss": [0.5, 0.25]})
    assert tables.over_everybody([twice, twice])["Loss"].tolist() == [0.5, 0.25]


def test_a_report_is_written_again_with_questions(file: Path, tmp_path: Path) -> None:
    run("run", str(file), "--quick", "--out", str(tmp_path / "one"))
    folder = tmp_path / "one" / "rounds"
    before = (folder / "report.md").read_text(encoding="utf-8")
    (folder / "report.html").unlink()
    assert run("report", str(folder)).exit_code == 0
    assert (folder / "report.md").read_text(encoding="utf-8") == before
    run("report", str(folder), "--question", "And why?")
    assert "And why?" in (folder / "report.html").read_text(encoding="utf-8")
    assert isinstance(run("report", str(tmp_path)).exception, UsageError)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("rounds = 3", 'rounds = "many"'), "parameter rounds is 'many'"),
        (("rounds = 3", "circles = 3"), "no parameter 'circles'"),
        (("epochs = 1", "epocs = 1"), "no parameter 'epocs'"),
        (('experiment = "repeated"', 'experiment = "repeat"'), "experiment 'repeat' does not exist"),
        (("[task]", "[tsk]"), "tsk"),
        (('title = "A small lab"', "title ="), "is not TOML"),
        (("rounds = 3", 'rounds = 3\nmethod = "magnitud"'), r"step 'Ten rounds'.*did you mean 'magnitude'"),
        (('title = "By hand"', 'title = "Rounds"\nexperiment = "repeated"'), "two steps have the folder 'rounds'"),
        (("rounds = 3", "rounds = 0"), "rounds is 0; it must be at least 1"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(change: tuple[str, str], words: str, tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(LAB.replace(*change))
    with pytest.raises(UsageError, match=words):
        course.read(path)


def test_the_shipped_labs_are_four_with_questions() -> None:
    assert course.names() == ["at-initialisation", "prune-finetune-look", "repeated-pruning", "your-own-model"]
    for name in course.names():
        lab = course.read(name)
        assert sum(len(step.questions) for step in lab.steps) >= 7
        assert any(step.experiment for step in lab.steps)
    assert "repeated-pruning: Repeated pruning" in run("labs").output
    with pytest.raises(UsageError, match="no lab is called so; there are at-initialisation"):
        course.read("unknown")


@pytest.mark.parametrize("name", course.names())
def test_a_first_look_shows_a_network_that_learned(name: str) -> None:
    """Digits in seconds: at chance every table and picture of a lab would show nothing (sixteen percent, once)."""
    lab = course.read(name)
    step = next(step for step in lab.steps if step.experiment)
    task = course.tasks_of(lab.table(step, quick=True), step.experiment)[0]
    model = task.new(0)
    train(model, task.train_batches, task.loss, lab.options(step, quick=True).training)
    assert task.measure(model) > 80


def execute(path: Path, folder: Path, seconds: int) -> None:
    os.environ["JUPYTER_PLATFORM_DIRS"] = "1"  # what it warns of otherwise
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(notebook, timeout=seconds, resources={"metadata": {"path": str(folder)}})
    client.execute()
    nbformat.write(notebook, folder / "executed.ipynb")  # to be read: --basetemp keeps it
    outputs = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert len(outputs) >= 5


@pytest.mark.filterwarnings("default")  # of Jupyter's own modules
def test_a_notebook_runs_from_top_to_bottom(file: Path, tmp_path: Path) -> None:
    path = write_notebook(course.read(file), tmp_path / "lab.ipynb", quick=True)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = [cell["source"] for cell in cells]
    assert any("lab.Repeated(" in source and "rounds=1" in source for source in sources)
    assert any(source.startswith("**Question 2.**") for source in sources)
    assert not any("contest lab" in source for source in sources)
    execute(path, tmp_path, 300)
    assert (tmp_path / "results" / "rounds" / "report.html").exists()
    every_table_and_figure_has_its_cell(sources, tmp_path / "results")


def every_table_and_figure_has_its_cell(sources: list[str], results: Path) -> None:
    """What the experiments made is the oracle: a figure that shares its table's name was once left out."""
    pages = [Results.load(page.parent) for page in results.rglob("results.json")]
    assert pages
    for page in pages:
        step = page.folder.name.replace("-", "_")
        for name in page.tables:
            assert f'{step}.tables.get("{name}")' in sources
        for name in page.drawn:
            assert f'{step}.figure("{name}") if "{name}" in {step}.drawn else None' in sources


def test_a_notebook_of_two_networks_has_the_tables_and_figures_of_both(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(
        """title = "Two"
[task]
models = ["mnist_fc:hidden=16", "mnist_fc:hidden=8"]
dataset = "digits"
train_images = 100
[[steps]]
title = "One"
experiment = "compare"
[steps.options]
methods = ["random", "synflow:rounds=3"]
ratios = [1, 2]
look_at = 2
[steps.options.training]
epochs = 1
"""
    )
    course.run(course.read(path), tmp_path / "results")
    cells = json.loads(write_notebook(course.read(path), tmp_path / "lab.ipynb").read_text(encoding="utf-8"))["cells"]
    every_table_and_figure_has_its_cell([cell["source"] for cell in cells], tmp_path / "results")


def test_a_name_that_no_table_or_figure_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(LAB.replace('name = "rounds"', 'name = "rounds"\nshow = ["kept", "acuracy"]'))
    with pytest.raises(UsageError, match=r"'Ten rounds' shows 'acuracy'; repeated makes none, kept, parameters"):
        write_notebook(course.read(path), tmp_path / "lab.ipynb")


def test_a_figure_of_lines_is_drawn_anew_as_the_student_likes(tmp_path: Path) -> None:
    page = Results(tmp_path, "t", "", {"experiment": "repeated", "task": "t", "seed": 0}, {})
    points = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0], "line": ["a", "a"]})
    page.add_figure("one", "A figure", figures.lines(points, "x", "y", "line", title="Old"))
    before = page.figure("one")._repr_png_()
    assert page.figure("one", title="Mine", x_log=True)._repr_png_() != before
    assert ">Mine<" in (tmp_path / "figures" / "one.svg").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be drawn anew with colour"):
        page.figure("one", colour="red")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", course.names())
def test_the_shipped_labs_notebooks_run(name: str, tmp_path: Path) -> None:
    path = write_notebook(course.read(name), tmp_path / "lab.ipynb", quick=True)
    execute(path, tmp_path, 900)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    shown = [cell["source"] for cell in cells]
    for step in course.read(name).steps:
        if step.experiment and not step.show:
            every_table_and_figure_has_its_cell(shown, tmp_path / "results" / step.folder)


def test_a_notebook_with_answers_is_not_written_over(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.ipynb"
    assert run("notebook", str(file), "--out", str(out)).exit_code == 0
    assert isinstance(run("notebook", str(file), "--out", str(out)).exception, UsageError)
