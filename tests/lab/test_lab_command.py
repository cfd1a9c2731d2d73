"""`contest lab` on the command line, on the bundled digits, and the page that is made of its folders."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from contest.cli import cli
from contest.errors import UsageError
from contest.lab.registry import options_of
from contest.lab.results import figures, tables
from contest.lab.results.report import Results
from contest.model_file import load

TINY = ["--model", "mnist_cnn:widths=2-3,hidden=8", "--dataset", "digits", "--batch-size", "64"]
FEW = ["--train-images", "128", "--test-images", "64"]
ONCE = ["--training", "epochs=1,learning_rate=0.01"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["lab", *arguments])


def done(*arguments: str) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def test_quantise_gives_the_contests_score(tmp_path: Path) -> None:
    options = ["--bits", "4", "--sparsities", "0,0.5", "--orders", "together", "--tuning", "epochs=0.5"]
    done("quantise", *TINY, *FEW, *ONCE, *options, "--out", str(tmp_path))
    table = pd.read_csv(tmp_path / "tables" / "grid.csv")
    assert table["Score"].notna().all()
    assert table["Score"][1] < table["Score"][0]  # half of the weights are free


def test_the_page_says_what_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "fc"
    model = ["--model", "mnist_fc:hidden=12", "--dataset", "digits"]
    done("repeated", *model, *FEW, *ONCE, "--rounds", "2", "--variants", "none,kept", "--out", str(folder))
    last = folder / "cells" / "kept-02.json"
    cell = last.read_text()
    last.unlink()
    page = tmp_path / "page.md"
    done("results", str(folder), "--out", str(page))
    text = page.read_text(encoding="utf-8")
    assert "**Unfinished**: 4 of 5 cells so far." in text
    assert "by at most 0.0000 points" in text
    assert "mnist_fc:hidden=12 on digits" in text and "(lab/fc-accuracy-by-sparsity.svg)" in text
    assert (tmp_path / "lab" / "fc-sizes.svg").exists()
    last.write_text(cell)
    done("results", str(folder), "--out", str(page))
    assert "All cells are finished." in page.read_text(encoding="utf-8")


def test_the_pages_figures_are_those_of_the_cells(tmp_path: Path) -> None:
    """A folder made by hand: the collapse, the recovery and the published column are read off it."""
    folder = tmp_path / "cnn"
    (folder / "cells").mkdir(parents=True)
    training = {"epochs": 5, "optimiser": "adadelta", "learning_rate": 1.0, "schedule": "step", "bf16": False}
    config = {"experiment": "finetune", "task": "mnist_cnn on mnist", "model": "mnist_cnn", "dataset": "mnist"}
    (folder / "config.json").write_text(json.dumps({**config, "training": training}))
    machine = {
        "processor": "abacus",
        "cores": "1",
        "torch threads": "1",
        "memory": "8 GiB",
        "torch": "2",
        "time": "2026",
    }
    (folder / "machine.json").write_text(json.dumps(machine))
    for key, metric, nonzeros in (("dense", 99.0, 1_199_648), ("pruned", 20.0, 119_966), ("tuned", 98.25, 119_966)):
        cell = {"metric": metric, "nonzeros": nonzeros, "sparsity": 1 - nonzeros / 1_199_648}
        (folder / "cells" / f"{key}.json").write_text(json.dumps(cell))
    done("results", str(folder), "--out", str(tmp_path / "page.md"))
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| before | 99.00 | 4.58 | 0.00 | 98.98 | 4.58 |" in text
    assert "| fine-tuned | 98.25 | 0.46 | 90.00 | 98.42 | 0.46 |" in text
    assert "fell by 79.00 points and came back to within 1 point of dense (+0.75 points lost)" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["repeated", *TINY, "--training", "pace=3"], "training option 'pace=3'"),
        (["repeated", *TINY, "--training", "epochs=many"], "epochs=many"),
        (["repeated", *TINY, "--variants", "backwards"], "variant 'backwards'"),
        (["sensitivity", *TINY, "--sparsities", "half"], "'half' is not a list of numbers"),
        (["sensitivity", *TINY, "--group", "all"], "name=layer,layer"),
        (["finetune", *TINY, "--layer", "conv1"], "name=sparsity"),
        (["quantise", *TINY, "--orders", "sideways"], "order 'sideways'"),
        (["repeated", "--task", "nowhere"], "package.module:factory"),
        (["repeated", *TINY, "--prunable", "lstm"], "prunable 'lstm' fits no parameter"),
        (["repeated", *TINY, "--initialisation", "zero"], "initialisation 'zero' does not exist"),
        (["repeated", *TINY, "--seeds", "0"], "seeds is 0"),
        (["repeated", *TINY, "--method", "grasp:heat=3"], "has no option 'heat'; there are: temperature"),
        (["repeated", *TINY, "--method", "grasp:temperature=hot"], "temperature is 'hot'; it must be float"),
        (["compare", *TINY, "--ratios", "2", "--sparsities", "0.5"], "--ratios and --sparsities say the same"),
        (["compare", *TINY, "--sparsities", "1"], "each must lie in [0, 1)"),
        (["finetune", *TINY, "--ratios", "pyproject.toml"], "no file of ratios"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = run(*arguments, "--out", str(tmp_path))
    assert isinstance(result.exception, UsageError)
    assert words in str(result.exception)


def test_compression_as_ratio_sparsity_or_exponent_is_the_same(tmp_path: Path) -> None:
    options = [*TINY, *FEW, *ONCE, "--methods", "random", "--look-at", "10", "--pretraining", "epochs=1"]
    columns = []
    for number, way in enumerate((["--ratios", "1,10"], ["--sparsities", "0,0.9"], ["--exponents", "0,1"])):
        done("compare", *options, *way, "--out", str(tmp_path / str(number)))
        columns.append(pd.read_csv(tmp_path / str(number) / "tables" / "accuracy.csv"))
    assert columns[0]["Sparsity (%)"].tolist() == [0, 90]
    assert columns[0].equals(columns[1]) and columns[0].equals(columns[2])
    fraction = pd.read_csv(tmp_path / "0" / "tables" / "flops-fraction.csv")["random"]
    assert fraction[0] == pytest.approx(1) and 0 < fraction[1] < 0.3


def test_seeds_give_means_with_standard_deviations_and_bands(tmp_path: Path) -> None:
    model = ["--model", "mnist_fc:hidden=12", "--dataset", "digits"]
    done(
        "repeated",
        *model,
        *FEW,
        *ONCE,
        "--rounds",
        "1",
        "--variants",
        "none",
        "--seeds",
        "3",
        "--latency-runs",
        "2",
        "--out",
        str(tmp_path),
    )
    own = [pd.read_csv(tmp_path / f"seed-{seed}" / "tables" / "none.csv")["Accuracy (%)"] for seed in range(3)]
    side = pd.concat(own, axis=1)
    table = pd.read_csv(tmp_path / "tables" / "none.csv")
    assert table["Accuracy (%)"].tolist() == pytest.approx(side.mean(axis=1).tolist())
    assert table["Accuracy (%) ±"].tolist() == pytest.approx(side.std(axis=1).tolist())
    assert " ± " in (tmp_path / "tables" / "none.md").read_text(encoding="utf-8")
    drawing = (tmp_path / "figures" / "accuracy-by-sparsity.svg").read_text(encoding="utf-8")
    single = (tmp_path / "seed-0" / "figures" / "accuracy-by-sparsity.svg").read_text(encoding="utf-8")
    areas = re.findall(r'aria-roledescription="area mark" d="([^"]*)"', drawing)
    assert len(areas) == 1 and areas[0].count("L") == 3  # there and back over two points; not an area at each of them
    assert "area mark" not in single
    assert (
        drawing.count('class="mark-symbol role-legend-symbol"')
        == single.count('class="mark-symbol role-legend-symbol"')
        == 1
    )
    assert 'opacity="0.2"' not in drawing.split("role-legend-symbol")[1].split("</g>")[0]


def test_a_band_shows_what_scatters_accuracy_also_where_it_is_on_the_x_axis() -> None:
    def of(*accuracies: float) -> figures.Lines:
        table = pd.DataFrame({"Accuracy": accuracies, "Sparsity": [0.0, 33.0], "Round": [0, 1], "Line": "kept"})
        return figures.lines(table, "Accuracy", "Sparsity", "Line", title="t", order="Round")

    one = of(90.0, 80.0)
    across = one.over_seeds([one, of(94.0, 80.0)])
    assert across.band_in_x and across.table["Accuracy"].tolist() == [92.0, 80.0]
    deviation = 8**0.5  # of 90 and 94
    assert (across.table["high"] - across.table["low"]).tolist() == pytest.approx([2 * deviation, 0.0])
    area = across.chart().to_dict()["layer"][0]
    assert area["mark"]["orient"] == "horizontal" and {"x", "x2"} < area["encoding"].keys()
    assert "order" not in area["encoding"] and "color" not in area["encoding"]  # which cut it, and pale the legend
    turned = replace(one, x="Sparsity", y="Accuracy")
    along = turned.over_seeds([turned, replace(of(94.0, 80.0), x="Sparsity", y="Accuracy")])
    assert not along.band_in_x and along.table["high"].tolist() == pytest.approx([92.0 + deviation, 80.0])


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.5, 20.0, [0.5, 1, 2, 5, 10, 20]),
        (33_000, 376_000, [50_000, 100_000, 200_000]),
        (0.9, 3.5, [0.9, 1, 2, 3]),
        (1.1, 2.9, [1.5, 2, 2.5]),
        (1192, 1580, [1200, 1300, 1400, 1500]),
        (0.01, 100.0, [0.01, 0.1, 1, 10, 100]),
    ],
)
def test_a_logarithmic_axis_names_the_powers_of_ten(low: float, high: float, ticks: list[float]) -> None:
    assert figures.log_ticks(low, high) == ticks


def test_seeds_are_added_to_a_finished_folder(tmp_path: Path) -> None:
    model = ["--model", "mnist_fc:hidden=12", "--dataset", "digits", "--sparsities", "0,0.9", "--targets", "0.95"]
    few = ["sensitivity", *model, *FEW, *ONCE, "--out", str(tmp_path)]
    done(*few, "--seed", "1")
    cell = tmp_path / "cells" / "fc-0.9.json"
    before = cell.read_text()
    done(*few, "--seeds", "2")
    assert cell.read_text() == before and not (tmp_path / "seed-1").exists()
    cells = [json.loads(p.read_text())["metric"] for p in (cell, tmp_path / "seed-0" / "cells" / "fc-0.9.json")]
    table = pd.read_csv(tmp_path / "tables" / "sensitivity.csv").set_index("Layer")
    assert table.loc["fc", "90 %"] == pytest.approx(sum(cells) / 2)
    other = run(*few, "--seed", "5", "--seeds", "2")
    assert "holds a run of seed 1, which is none of 5, 6" in str(other.exception)


@pytest.mark.parametrize(
    ("experiment", "given", "words"),
    [
        ("repeated", {"fraction": 1.0}, "fraction is 1; it must lie between 0 and 1"),
        ("repeated", {"latency_runs": 0}, "latency_runs is 0; it must be at least 1"),
        ("repeated", {"latency_warmup": -1}, "latency_warmup is -1; it must be at least 0"),
        ("repeated", {"variants": []}, "variants is empty"),
        ("repeated", {"variants": ["none", "kept", "none"]}, "variants holds none twice"),
        ("repeated", {"training": {"learning_rate": -1.0}}, "learning_rate is -1"),
        ("repeated", {"training": {"learning_rate": float("nan")}}, "learning_rate is nan"),
        ("compare", {"ratios": [1, 0.5]}, "ratios is 0.5; it must be at least 1"),
        ("compare", {"methods": ["snip", "snip"]}, "methods holds snip twice"),
        ("compare", {"scoring_samples": 0}, "scoring_samples is 0"),
        ("finetune", {"sparsity": 1.5}, r"sparsity is 1\.5; it must lie in \[0, 1\]"),
        ("finetune", {"layers": [["fc.weight", 0.5], ["fc.weight", 0.6]]}, "layers holds fc.weight twice"),
        ("finetune", {"images": 0}, "images is 0"),
        ("sensitivity", {"targets": [1.0]}, "targets is 1; it must lie between"),
        ("sensitivity", {"sparsities": [float("nan")]}, "sparsities is nan"),
        ("deploy", {"removed": [-0.5]}, r"removed is -0\.5"),
        ("quantise", {"bits": [4, 16]}, "bits is 16; it must be 1 to 8, or 32"),
        ("quantise", {"orders": []}, "orders is empty"),
    ],
)
def test_parameters_out_of_range_are_refused_before_anything(
    experiment: str, given: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        options_of(experiment, given)


def test_layers_that_do_not_exist_are_named_before_any_training(tmp_path: Path) -> None:
    for options, words in (
        (["finetune", "--look-at", "conv9.weight"], "no convolution's weight; there are: conv1.weight"),
        (["finetune", "--layer", "conv9.weight=0.5"], "no prunable weight is called conv9.weight"),
        (["sensitivity", "--group", "a=conv1", "--group", "b=conv1,fc"], "conv1.weight is in the groups a and b"),
        (["repeated", "--variants", "none,7"], "rewinding to step 7: the first training has steps 1 to 2"),
        (["repeated", "--variants", "0"], "rewinding to step 0"),
    ):
        result = run(*options, *TINY, *FEW, *ONCE, "--out", str(tmp_path))
        assert isinstance(result.exception, UsageError) and words in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_ratios_of_sensitivity_are_taken_by_finetune_and_train(tmp_path: Path) -> None:
    few = [*TINY, *FEW, *ONCE]
    done("sensitivity", *few, "--sparsities", "0,0.5,0.9", "--targets", "0.6", "--out", str(tmp_path / "s"))
    ratios = tmp_path / "s" / "ratios.json"
    each = json.loads(ratios.read_text())["layers"]
    gain = pd.read_csv(tmp_path / "s" / "tables" / "gain.csv")
    assert {"Accuracy (%), uniform", "Accuracy (%), suggested", "Difference"} <= set(gain.columns)
    done("finetune", *few, "--ratios", str(ratios), "--tuning", "epochs=1", "--out", str(tmp_path / "f"))
    layers = pd.read_csv(tmp_path / "f" / "tables" / "layers.csv")
    assert dict(zip(layers["Layer"], layers["Sparsity (%)"] / 100, strict=True)) == pytest.approx(each, abs=0.03)
    total = (layers["Weights"] * layers["Sparsity (%)"]).sum() / layers["Weights"].sum()
    assert total == pytest.approx(60, abs=1)

    # `contest train` takes the same file, and half precision keeps exactly those zeros.
    model = tmp_path / "model.pt"
    recipe = ["--train", "epochs=1", "--tune", "epochs=1", "--bits", "16", "--dataset", "digits", "--device", "cpu"]
    trained = CliRunner().invoke(
        cli, ["train", TINY[1], *recipe, "--ratios", str(ratios), "--out", str(model)], catch_exceptions=False
    )
    assert trained.exit_code == 0, trained.output
    weights = load(model).body.state_dict()
    zeros = {name: float((weights[name] == 0).float().mean()) for name in each}
    assert zeros == pytest.approx(dict(zip(layers["Layer"], layers["Sparsity (%)"] / 100, strict=True)))


def test_a_line_for_each_cell_where_nobody_watches_and_what_it_will_take(tmp_path: Path) -> None:
    model = ["--model", "mnist_fc:hidden=12", "--dataset", "digits"]
    result = done("repeated", *model, *FEW, *ONCE, "--rounds", "1", "--variants", "none", "--out", str(tmp_path))
    assert "2 of 2 cells to do, 1 epochs and 2 tests: about" in result.stderr
    assert "1/2 dense: " in result.stderr and "2/2 none-01: " in result.stderr
    assert "The 2 cells took" in result.stdout


def test_wide_tables_are_split_and_never_cut(tmp_path: Path) -> None:
    from rich.console import Console

    from contest.lab.results.tables import show_table

    table = pd.DataFrame({"Name": ["a"], **{f"Column number {i}": [12345.678901 + i] for i in range(12)}})
    with (tmp_path / "out").open("w") as file:
        console = Console(width=60, record=True, file=file)
        show_table(console, "wide", table)
        text = console.export_text()
    assert all(f"{12345.678901 + i:.2f}" in text for i in range(12)) and "…" not in text


def test_the_parts_of_a_split_table_keep_what_tells_its_rows_apart(tmp_path: Path) -> None:
    from rich.console import Console

    from contest.lab.results.tables import show_table

    table = pd.DataFrame({"Pruning": ["zeros", "zeros"], "Pruned (%)": [50, 90], "A": ["one", "two"], "B": [3, 4]})
    for column in "CDEFGH":
        table[f"Column {column}"] = [1.0, 2.0]
    same = pd.DataFrame({"Pruning": ["zeros", "zeros"], "Kind": ["a", "a"]})
    with (tmp_path / "out").open("w") as file:
        console = Console(width=60, record=True, file=file)
        show_table(console, "wide", table)
        text = console.export_text()
        show_table(console, "rows that are alike", same)
    rows = [line for line in text.splitlines() if "zeros" in line]
    assert len(rows) >= 4 and all(("50" in row) or ("90" in row) for row in rows)


def test_captions_of_latex_tables_are_captions(tmp_path: Path) -> None:
    page = Results(tmp_path, "Title", "", {}, {})
    page.add_table("one", "Accuracy (%) & size_MB", pd.DataFrame({"Layer": ["fc_1"], "Accuracy (%)": [97.0341]}))
    latex = (tmp_path / "tables" / "one.tex").read_text(encoding="utf-8")
    assert r"\caption{Accuracy (\%) \& size\_MB}" in latex and r"fc\_1 & 97.03" in latex


def test_methods_are_listed() -> None:
    output = done("methods").output
    assert "synflow:rounds=100" in output and "thinet:places=512" in output and "…" not in output
    assert max(map(len, output.splitlines())) <= 80


def test_every_experiment_has_help() -> None:
    experiments = ("repeated", "compare", "finetune", "sensitivity", "deploy", "quantise")
    commands = (*experiments, "run", "notebook", "labs", "report", "collect", "methods", "results", "gallery")
    for command in commands:
        assert done(command, "--help").output.count("\n") > 4


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([97.034, 9.8, None, 100], ["97.03", "9.80", "", "100"]),
        ([0.0178, 0.2], ["0.018", "0.200"]),
        ([0.05, 0.0009], ["0.05000", "0.00090"]),
        ([3.4e-07, 2.8e-07], ["3.4e-07", "2.8e-07"]),
        ([float("nan"), 1.0], ["nan", "1.00"]),
    ],
)
def test_a_column_has_one_number_of_decimals(values: list[float | None], texts: list[str]) -> None:
    assert tables.column_text(values) == texts


def test_the_report_sets_words_left_and_numbers_right(tmp_path: Path) -> None:
    page = Results(tmp_path, "Title", "", {}, {})
    page.add_table("layers", "Layers", pd.DataFrame({"Layer": ["fc"], "Weights": [10]}))
    assert '<td class="text">fc</td><td>10</td>' in page.finish().read_text(encoding="utf-8")


def test_a_column_of_whole_numbers_has_no_decimals() -> None:
    assert tables.whole(pd.Series([100 * 0.55, 90.0])).tolist() == [55, 90]
    assert "| 55 |" in tables.markdown(pd.DataFrame({"Pruned (%)": tables.whole(pd.Series([100 * 0.55, 90.0]))}))
    assert tables.whole(pd.Series([0.5, 1.0])).tolist() == [0.5, 1.0]
