"""`contest kit`: what a team starts with, as one archive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template
from zipfile import ZIP_DEFLATED, ZipFile

import click

from contest.errors import UsageError

_FOLDER = Path(__file__).parents[1] / "kit"
_README = """\
# Starter kit

1. `pip install contest notebook` (Python 3.11 or newer), and unpack this archive.
2. `jupyter notebook start.ipynb`, and run it from the top. On a CPU begin with `contest kit --quick`: the same steps on
   small images, in a minute.
3. `resnet.py` is the network. It is an ordinary module of PyTorch: change it, or put your own in its place.
"""


@dataclass(frozen=True)
class Size:
    """How large the notebook's example is."""

    network: str
    epochs: int
    tuning: int
    keep: float


FULL = Size("{'widths': (16, 32, 64), 'blocks': 3}", 60, 20, 0.4)
QUICK = Size("{'widths': (8, 16), 'blocks': 1}", 12, 4, 0.4)


@click.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--rule", help="The contest's rule [default: lab; digits with --quick].")
@click.option("--url", default="", help="The leaderboard's address, for the command that hands in.")
@click.option("--contest", "name", default="", help="The contest's name there.")
@click.option("--quick", is_flag=True, help="On scikit-learn's digits: a minute on one processor core.")
def kit(out: Path, rule: str | None, url: str, name: str, quick: bool) -> None:
    """Write a team's starter kit: a notebook from a trained ResNet to an entry, each step scored.

    OUT ends in .zip. The steps: a checkpoint as students save it, a validation set, half precision, pruning with masks
    that hold, 8 bits with torch.ao, 4 bits with Brevitas, the file that is handed in.
    """
    from contest.lab.notebook import save_notebook
    from scoring.rules import load_rule

    if out.suffix != ".zip":
        raise UsageError(f"{out.name}: the kit is an archive, so its name ends in .zip")
    if out.exists():
        raise UsageError(f"{out} exists; remove it, or give another name")
    chosen = load_rule(rule or ("digits" if quick else "lab"))
    text = page(chosen.name, chosen.dataset, QUICK if quick else FULL, url, name)
    notebook = save_notebook(cells(text), out.with_suffix(".ipynb.part"))
    try:
        with ZipFile(out, "w", ZIP_DEFLATED) as archive:
            archive.write(notebook, "start.ipynb")
            archive.write(_FOLDER / "resnet.py", "resnet.py")
            archive.writestr("README.md", _README)
    finally:
        notebook.unlink()
    click.echo(str(out))


def page(rule: str, dataset: str, size: Size, url: str = "", name: str = "") -> str:
    """The notebook as Markdown with blocks of Python."""
    to = f" --url {url}{f' --contest {name}' if name else ''}" if url else ' --team "The Weights"'
    return Template((_FOLDER / "start.md").read_text(encoding="utf-8")).substitute(
        rule=rule,
        dataset=dataset,
        network=size.network,
        epochs=size.epochs,
        tuning=size.tuning,
        keep=size.keep,
        where=f" at {url}" if url else "",
        address=to,
    )


def cells(text: str) -> Iterator[tuple[str, str]]:
    """(kind, source) of the cells of a page: `code` for its blocks of Python, `markdown` for what is between."""
    for number, part in enumerate(re.split(r"^```python\n(.*?)^```\n", text, flags=re.MULTILINE | re.DOTALL)):
        if part.strip():
            yield ("code" if number % 2 else "markdown"), part.strip()
