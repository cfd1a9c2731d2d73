"""`--config FILE` and `--print-config` of every command: its options in a TOML file, and a file from its options."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from contest.errors import UsageError, did_you_mean

_PRINT = "contest.print_config"


def with_run_file(command: click.Command) -> click.Command:
    """The same command (of a group: each of its commands) with both options; a second time changes nothing.

    What the command line says comes before what the file says.
    """
    if isinstance(command, click.Group):
        for one in command.commands.values():
            with_run_file(one)
        return command
    if command.callback is None or any(option.name == "config_file" for option in command.params):
        return command
    command.params += [
        click.Option(
            ["--config", "config_file"],
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            is_eager=True,
            expose_value=False,
            callback=_read,
            help="A TOML file with options by their names, `trials = 100`; the command line comes first.",
        ),
        click.Option(
            ["--print-config"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_note,
            help="Print the options as such a file, and do nothing else.",
        ),
    ]
    for parameter in command.params:
        _is_not_missed(parameter)
    command.callback = _printing(command.callback)
    return command


def _is_not_missed(parameter: click.Parameter) -> None:
    """Where options are only printed, a required one may be left out."""
    missing = parameter.value_is_missing

    def value_is_missing(value: Any) -> bool:
        return missing(value) and not click.get_current_context().meta.get(_PRINT)

    parameter.value_is_missing = value_is_missing  # type: ignore[method-assign]


def _options(command: click.Command) -> dict[str, click.Option]:
    """By the long name, without its dashes."""
    found = {}
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in ("config_file", "print_config", "help"):
            found[max(option.opts, key=len).removeprefix("--")] = option
    return found


def _read(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"'{path}' is not a readable TOML file: {error}") from error
    options, values = _options(context.command), {}
    for key, value in table.items():
        option = options.get(key.replace("_", "-"))
        if option is None or option.name is None:
            near = did_you_mean(key, options)
            raise UsageError(f"'{path}': `contest {context.info_name}` has no option '{key}'{near}")
        values[option.name] = _given(f"'{path}': {key} = {json.dumps(value, default=str)}", option, value)
    context.default_map = {**(context.default_map or {}), **values}


def _given(what: str, option: click.Option, value: Any) -> Any:
    """As the command line would give it: a text; a list of them where an option may be given again, which one text
    stands for too; true and false of a switch as they are. Raises UsageError for what the option cannot take."""
    if option.multiple or option.nargs != 1:
        return [_text(what, one) for one in (value if isinstance(value, list) else [value])]
    if isinstance(value, bool) and (option.is_flag or option.type is click.BOOL):
        return value
    return _text(what, value)


def _text(what: str, value: Any) -> str:
    if isinstance(value, bool | list | dict):
        kind = "a list" if isinstance(value, list) else "a table" if isinstance(value, dict) else "true or false"
        raise UsageError(f"{what}: this option takes a text or a number, not {kind}")
    return str(value)


def _note(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[_PRINT] = value


def _printing(callback: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(callback)
    def run(*arguments: Any, **values: Any) -> Any:
        context = click.get_current_context()
        if context.meta.get(_PRINT):
            click.echo(_as_toml(context))
            return None
        return callback(*arguments, **values)

    return run


def _as_toml(context: click.Context) -> str:
    lines = [f"# contest {context.info_name} --config THIS_FILE"]
    for name, option in _options(context.command).items():
        value = context.params.get(option.name or "")
        if value is None or value == ():
            lines.append(f"# {name} =")
        else:
            lines.append(f"{name} = {_literal(value)}")
    return "\n".join(lines)


def _literal(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_literal(one) for one in value)}]"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False)
