"""`chimera export`: an agent leaves the platform."""

import datetime
import importlib.resources
import importlib.util
from pathlib import Path
from typing import Any

import click
import msgspec

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import options_of, run

COLUMNS = (("file", "FILE"),)
_SKIPPED = ("__pycache__", "testing", "node")


@click.group(epilog="Example: chimera export function hello")
def export() -> None:
    """Write an agent as a project of Knative Functions."""


@export.command(epilog="Example: chimera export function agents/hello.yaml --to hello-function")
@click.argument("agent")
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), help="Folder to make; by default AGENT's name.")
@out.output_option
@click.pass_context
def function(context: click.Context, agent: str, to: Path | None, output: str) -> None:
    """Write AGENT, the name of a live agent or the file of a definition, as a project that `func build` takes.

    An agent with a source folder is exported from its file, since the platform gives its source to hosts alone.
    """
    from chimera.agents.function_project import export as project_of

    value, revision, source = _from_file(context, agent) if _is_file(agent) else _from_catalogue(context, agent)
    project = project_of(
        value,
        revision=revision,
        source=source,
        lock=(importlib.resources.files("chimera") / "runtimes" / f"{value.agent.framework}.lock").read_text(),
        host=_host_files(),
        created=datetime.datetime.now(datetime.UTC),
    )
    folder = to or Path(value.agent.name)
    if folder.exists() and any(folder.iterdir()):
        raise click.UsageError(f"{folder} is there already, and not empty; name another with --to")
    for path, data in project.files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    own = [path for path in sorted(project.files) if not path.startswith("chimera_host/")]
    rows = [{"file": str(folder / path)} for path in own]
    told = {
        "agent": value.agent.name,
        "revision": revision,
        "folder": str(folder),
        "files": sorted(project.files),
        "left_behind": list(project.left_behind),
    }
    out.show(told, output, columns=COLUMNS, rows=rows)
    if output == "table":
        for one in project.left_behind:
            click.echo(f"left behind: {one}", err=True)


def _is_file(agent: str) -> bool:
    return agent.endswith((".yaml", ".yml")) or Path(agent).is_file()


def _from_file(context: click.Context, name: str) -> tuple[Any, str, bytes | None]:
    """The one definition of a file, compiled as `apply` would, with its packed source."""
    from chimera.agents.compile import compile_definition
    from chimera.agents.validate import check_text
    from chimera.entrypoints.cli.sources import read_sources

    found = list(read_sources((name,)))
    if len(found) != 1:
        raise click.UsageError(f"{name} holds {len(found)} definitions; name a file with one")
    (source,) = found
    packed = source.packed
    checked = check_text(
        source.document.text,
        file=source.document.file,
        first_line=source.document.first_line,
        files=packed.files if packed is not None else None,
    )
    tenant = str(context.obj.get("tenant") or "default")
    compiled = compile_definition(checked, tenant=tenant, bundle=packed.bundle if packed is not None else None)
    return compiled.value, compiled.digest, packed.data if packed is not None else None


def _from_catalogue(context: click.Context, name: str) -> tuple[Any, str, None]:
    """A live agent's definition; its source isn't given to clients."""
    from chimera.agents.compile import CanonicalDefinition

    found = run(options_of(context), lambda api: api.call("GET", api.path("agents", name)))
    return msgspec.convert(found["definition"], CanonicalDefinition), str(found["revision"]), None


def _host_files() -> dict[str, bytes]:
    """The package `chimera_host`, which the project carries: it is on no index under the pins of this release."""
    spec = importlib.util.find_spec("chimera_host")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not set(file.relative_to(folder).parts) & set(_SKIPPED)
    }
