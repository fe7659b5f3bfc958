"""Answers as tables for people, as JSON or YAML for programs. `rich` is imported only for a table."""

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from chimera.entrypoints.cli.text import clean, shown

Column = tuple[str, str]


def output_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--output table|json|yaml`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "yaml"]),
        default="table",
        show_default=True,
        help="How to print.",
    )(function)


def show(data: Any, output: str, *, columns: Sequence[Column] = (), rows: Sequence[Mapping[str, Any]] = ()) -> None:
    """Print `data`, or its `rows` as a table of `columns` (field, heading)."""
    if output == "json":
        click.echo(shown(msgspec.json.format(msgspec.json.encode(data), indent=2).decode()))
    elif output == "yaml":
        click.echo(shown(to_yaml(data)), nl=False)
    else:
        table(columns, rows)


def show_next(data: Any, output: str) -> None:
    """Print one of several that come one by one: a line of JSON each, or a YAML document each."""
    if output == "json":
        click.echo(shown(msgspec.json.encode(data).decode()))
    else:
        click.echo(shown(f"---\n{to_yaml(data)}"), nl=False)


def to_yaml(data: Any) -> str:
    """Data as YAML, in its own order."""
    import yaml

    text: str = yaml.safe_dump(msgspec.to_builtins(data), sort_keys=False, allow_unicode=True, width=110)
    return text


def table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table; plain tab-separated lines where nobody looks at a terminal."""
    if not sys.stdout.isatty():
        click.echo("\t".join(heading for _, heading in columns))
        for row in rows:
            click.echo("\t".join(cell(row.get(field)).replace("\t", " ").replace("\n", " ") for field, _ in columns))
        return
    from rich.console import Console
    from rich.table import Table

    made = Table(box=None, header_style="bold", pad_edge=False)
    for _, heading in columns:
        made.add_column(heading, overflow="ellipsis", no_wrap=True)
    for row in rows:
        made.add_row(*(cell(row.get(field)) for field, _ in columns))
    Console().print(made)


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return clean(", ".join(map(str, value)))
    return clean(str(value))


def moment(value: Any) -> str:
    """Seconds since the epoch as a date and time, UTC."""
    if not isinstance(value, (int, float)):
        return "-"
    return datetime.fromtimestamp(value, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def size(value: Any) -> str:
    """Bytes for people."""
    return "-" if value is None else f"{int(value) / 1048576:,.0f} MiB"


def progress(word: str) -> Callable[..., None]:
    """Says on a terminal how far a long piece of work is: the table, its rows, of how many."""

    def told(table: str, rows: int, of: int | None = None) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{table}: {rows:,}{'' if of is None else f' of {of:,}'} rows {word}")

    return told


def end_progress() -> None:
    """Clear that line."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
