"""The command line: the roof over the four packages. Commands are imported when they are run."""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import click

from contest import __version__
from contest.errors import ContestError, UsageError, did_you_mean
from contest.run_file import with_run_file

# command -> (module:object, help line). The help stands here so that `contest --help` imports nothing else.
COMMANDS: dict[str, tuple[str, str]] = {
    "search": ("search.commands:search", "Search for the network with the lowest score."),
    "worker": ("search.commands:worker", "Work on a shared study, beside other workers."),
    "status": ("search.commands:status", "How far a study is, while it runs or after."),
    "doctor": ("search.commands:doctor", "What this machine has, how fast it trains, what a budget buys."),
    "report": ("search.commands:report", "What happened in a study: HTML, figures, slides."),
    "train": ("contest.commands:train", "Train and compress one candidate into a model.pt."),
    "score": ("scoring.commands:score", "Recompute a network's score from its file."),
    "compare": ("scoring.comparison:compare", "Put two networks side by side: terms, layers, images."),
    "convert": ("scoring.commands:convert", "Turn a network from elsewhere into a checked ONNX file."),
    "pack": ("contest.commands:pack", "Write a model.pt as bit-packed codes and bitmasks."),
    "unpack": ("contest.commands:unpack", "Read a packed file back into the network that it holds."),
    "submit": ("leaderboard.commands.user:submit", "Score a file and enter it in the leaderboard."),
    "kit": ("leaderboard.commands.kit:kit", "Write a team's starter kit: a notebook from a ResNet to an entry."),
    "leaderboard": ("leaderboard.commands.ranking:leaderboard", "Show the ranking."),
    "plot": ("leaderboard.commands.ranking:plot", "Draw accuracy against score."),
    "serve": ("leaderboard.commands.user:serve", "Serve the leaderboard: pages, API, queue."),
    "leaderboard-worker": ("leaderboard.commands.user:leaderboard_worker", "Score queued submissions."),
    "admin": ("leaderboard.commands.admin:admin", "Contests, teams, tokens, export and import."),
    "lab": ("contest.lab.commands:lab", "The laboratory experiments."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported only when they are run (torch takes seconds to import)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            ctx.fail(f"no command '{cmd_name}'{did_you_mean(cmd_name, COMMANDS)}")
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return with_run_file(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Neural-network compression contests: search, compress, verify, rank."""
    ctx.obj = _score_of_own_file
    ctx.meta["contest.study"] = _networks_of_study


def _score_of_own_file(path: Path) -> float:
    """The `lab` score of a file that this process wrote: what the laboratory asks for without knowing `scoring`."""
    from scoring.score import score_file

    return float(score_file(path, trust=True).scores["lab"].total)


def _networks_of_study(directory: Path) -> list[dict[str, Any]]:
    """A study's networks, trained to their end, as `contest plot` draws them; accuracies are those on validation."""
    from search.study.study import open_study
    from search.study.trial import float_key

    study = open_study(directory)
    done = [record for record in study.finished() if record.at_end]
    study.close()
    floats = {float_key(r.candidate): f"trial {r.number}" for r in done if r.stage == "parent"}
    rows = []
    for record in done:
        result, made = record.result, record.candidate
        assert result is not None
        price = result.price if record.is_network else _as_float(made, study.settings)
        if price is None:
            continue
        zeros = made.unstructured if record.is_network else 0.0
        measured = {
            "q_w": made.bits.weights if record.is_network else 32,
            "p_s_weights": made.structured if record.is_network else 0.0,
            "weights": price.weights,
            "nonzeros": (1 - zeros) * price.weights,
        }
        row: dict[str, Any] = {"name": f"trial {record.number}", "accuracy": result.accuracy, "score": price.total}
        row |= {"params": price.params, "macs": float(price.macs), "measured": measured}
        rows.append({**row, "parent": floats.get(float_key(made), "") if record.is_network else ""})
    return rows


def _as_float(made: Any, settings: Any) -> Any:
    """The price of a float parent as it is, 32 bits and no zeros (a study keeps that of the child it promises).

    None where the data set's images are not known by name.
    """
    from contest.candidate import Candidate
    from contest.datasets.registry import facts
    from search.trainers.pipeline import price_before

    known = facts(settings.dataset)
    if known.image_shape is None or known.number_of_classes is None:
        return None
    return price_before(Candidate(made.architecture), settings.rule, known.image_shape, known.number_of_classes)


def _quiet_libraries() -> None:
    """Libraries talk to programmers (deprecations, no CUDA runtime, experimental interfaces); -W brings it back."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def main() -> None:
    """Run the command line and turn errors into messages and the documented exit codes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of another alphabet shows `?`, and nothing ends for it
            stream.reconfigure(errors="replace")
    _quiet_libraries()
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(UsageError.exit_code)
    except ContestError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # who read the output has enough (`contest ... | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as the shell reports it
    except OSError as error:  # a disk that is full, a folder that is read-only or gone, a network that is away
        where = f": {error.filename}" if error.filename else ""
        click.echo(f"error: {error.strerror or error}{where}", err=True)
        sys.exit(UsageError.exit_code)
    except Exception:  # anything else is a mistake of ours: show it whole, under a code of its own
        traceback.print_exc()
        sys.exit(ContestError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
