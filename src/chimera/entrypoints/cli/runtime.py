"""`chimera runtime`: the environments that frameworks and the bundled model run in."""

import os

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.identity import Duration
from chimera.kernel.places import runtime_overrides, runtimes_folder

ALL = ("autogen", "langgraph", "crewai", "function", "local-model", "node")
COLUMNS = (
    ("name", "RUNTIME"),
    ("installed", "INSTALLED"),
    ("packages", "PACKAGES"),
    ("memory", "SIZE"),
    ("path", "PATH"),
)
PRUNED_COLUMNS = (("path", "REMOVED"), ("idle_days", "DAYS UNUSED"), ("size", "SIZE"))


@click.group(epilog="Example: chimera runtime install autogen langgraph")
def runtime() -> None:
    """Install and list the environments of frameworks; each is made from a hashed lock."""


@runtime.command(epilog="Example: chimera runtime install crewai")
@click.argument("names", nargs=-1, type=click.Choice(ALL))
def install(names: tuple[str, ...]) -> None:
    """Make the environments of NAMES (all of them where none is named); what is there already stays."""
    from chimera.adapters.runtimes import Runtimes

    runtimes = Runtimes(runtimes_folder(os.environ), runtime_overrides(os.environ))
    for name in names or ALL:
        python = runtimes.install(name, report=lambda text: click.echo(f"{text} …", err=True))
        click.echo(f"{name}: {python}")


@runtime.command(epilog="Example: chimera runtime prune --idle 30d --dry-run")
@click.option("--idle", type=Duration(), default="30d", show_default=True, help="Only what nobody used for so long.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@out.output_option
def prune(idle: float, dry_run: bool, output: str) -> None:
    """Remove environments of agents' own requirements and of other releases that nobody used for long.

    What a running host uses stays. What is removed is made again when it is needed.
    """
    from chimera.adapters.runtimes import Runtimes

    runtimes = Runtimes(runtimes_folder(os.environ), runtime_overrides(os.environ))
    rows = [
        {"path": str(one.path), "idle_days": round(one.idle / 86_400, 1), "bytes": one.size, "size": out.size(one.size)}
        for one in runtimes.prune(idle, dry_run=dry_run)
    ]
    out.show(rows, output, columns=PRUNED_COLUMNS, rows=rows)


@runtime.command(name="list", epilog="Example: chimera runtime list --output json")
@out.output_option
def listing(output: str) -> None:
    """List the environments with their sizes."""
    from chimera.adapters.runtimes import Runtimes

    rows = [
        {
            "name": one.name,
            "installed": one.installed,
            "packages": one.packages,
            "bytes": one.size,
            "memory": out.size(one.size) if one.size else "-",
            "path": str(one.path),
        }
        for one in Runtimes(runtimes_folder(os.environ), runtime_overrides(os.environ)).status()
    ]
    out.show(rows, output, columns=COLUMNS, rows=rows)
