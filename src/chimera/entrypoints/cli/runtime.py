"""`chimera runtime`: the environments that frameworks and the bundled model run in."""

import os

import click

from chimera.entrypoints.cli import output as out
from chimera.kernel.places import runtime_overrides, runtimes_folder

ALL = ("autogen", "langgraph", "crewai", "function", "local-model")
COLUMNS = (
    ("name", "RUNTIME"),
    ("installed", "INSTALLED"),
    ("packages", "PACKAGES"),
    ("memory", "SIZE"),
    ("path", "PATH"),
)


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
