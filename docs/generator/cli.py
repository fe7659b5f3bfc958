"""The command line's page, from the commands themselves."""

from collections.abc import Iterator

import click

from chimera.entrypoints.cli.main import COMMANDS, cli
from docs.generator.tables import code, head, table


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name, groups before what is in them."""
    context = click.Context(cli, info_name="chimera")
    for name in COMMANDS:
        found = cli.get_command(context, name)
        assert found is not None
        yield from _with_inner(name, found)


def _with_inner(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for inner in sorted(command.commands):
            yield from _with_inner(f"{name} {inner}", command.commands[inner])


def page() -> str:
    """The whole page."""
    parts = [head("The command line"), _INTRODUCTION]
    parts.append("## Options of every command\n\nThey stand before the command: `chimera --home DIR status`.\n")
    parts.append(_options(cli, "CHIMERA_"))
    for name, command in commands():
        parts.append(_command(name, command))
    return "\n".join(parts)


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"chimera {name}")
    usage = " ".join([f"chimera {name}", *command.collect_usage_pieces(context)])
    text = f"## {name}\n\n{_text(command.help)}\n\n```\n{usage}\n```\n"
    if command.epilog:
        kind, _, example = command.epilog.partition(": ")
        text += f"\n{kind}: `{example}`\n"
    options = _options(command)
    return text + (f"\n{options}" if options else "")


def _options(command: click.Command, prefix: str | None = None) -> str:
    rows = []
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        names = ", ".join(code(name) for name in (*parameter.opts, *parameter.secondary_opts))
        if not parameter.is_flag and not parameter.count:
            names += f" {_kind(parameter.type)}"
        shown = parameter.default if parameter.show_default and not parameter.is_flag else None
        text = parameter.help or ""
        if prefix and not parameter.is_eager:
            text += f" Or the variable `{prefix}{(parameter.name or '').upper()}`."
        rows.append((names, code(shown) if shown is not None else "", text))
    return table(("option", "default", "meaning"), rows) if rows else ""


def _kind(kind: click.ParamType[object]) -> str:
    if isinstance(kind, click.Choice):
        return " or ".join(code(option) for option in kind.choices)
    if isinstance(kind, click.Path):
        return "path"
    return {"integer range": "whole number", "float range": "number"}.get(kind.name, kind.name)


def _text(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


_INTRODUCTION = """\
`--help` after a command shows the same. `--output json` or `yaml` prints data for programs; without a terminal, tables
are lines with tabs between their fields. An error is one sentence and a next step on standard error, and an
[exit code](errors.md#exit-codes-of-the-command-line).
"""
