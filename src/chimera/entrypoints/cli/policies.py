"""`chimera policies`: Cedar policies, their tests, and why something is decided as it is."""

from pathlib import Path
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import options_of, run
from chimera.entrypoints.cli.identity import ROLES, limit_option, pages
from chimera.entrypoints.cli.text import clean

SUFFIX = ".cedar"
POLICY_COLUMNS = (("name", "POLICY"), ("version", "VERSION"), ("since", "SINCE"), ("by", "BY"))


@click.group(epilog="Example: chimera policies apply policies/ && chimera policies test cases.yaml")
def policies() -> None:
    """Apply, list, test and explain policies."""


@policies.command(name="apply", epilog="Example: chimera policies apply policies/")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--delete", "deleted", multiple=True, help="Delete the policy of this name; may repeat.")
@out.output_option
@click.pass_context
def apply_policies(context: click.Context, /, paths: tuple[Path, ...], deleted: tuple[str, ...], output: str) -> None:
    """Store the policies in PATHS (`.cedar` files and folders of them), all or none; a file's name is the policy's."""
    texts: dict[str, str | None] = {**read(paths), **dict.fromkeys(deleted)}
    body = {"policies": texts}
    rows = run(options_of(context), lambda api: api.call("PUT", api.path("policies"), body))
    told = [{**row, "since": out.moment(row["updated"])} for row in rows]
    out.show(rows, output, columns=POLICY_COLUMNS, rows=told)


@policies.command(name="delete", epilog="Example: chimera policies delete no-payments")
@click.argument("names", nargs=-1, required=True)
@out.output_option
@click.pass_context
def delete_policies(context: click.Context, names: tuple[str, ...], output: str) -> None:
    """Delete the policies NAMES, all or none."""
    body = {"policies": dict.fromkeys(names)}
    rows = run(options_of(context), lambda api: api.call("PUT", api.path("policies"), body))
    told = [{**row, "since": out.moment(row["updated"])} for row in rows]
    out.show(rows, output, columns=POLICY_COLUMNS, rows=told)


@policies.command(name="list", epilog="Example: chimera policies list")
@limit_option
@out.output_option
@click.pass_context
def list_policies(context: click.Context, /, limit: int, output: str) -> None:
    """List policies; JSON and YAML have their texts."""
    rows = run(options_of(context), lambda api: pages(api, api.path("policies"), "policies", limit))
    told = [{**row, "since": out.moment(row["updated"])} for row in rows]
    out.show(rows, output, columns=POLICY_COLUMNS, rows=told)


@policies.command(name="test", epilog="Example: chimera policies test cases.yaml --with policies/")
@click.argument("cases", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--with",
    "candidates",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Policies to try, unstored.",
)
@out.output_option
@click.pass_context
def run_cases(context: click.Context, /, cases: Path, candidates: tuple[Path, ...], output: str) -> None:
    """Ask the CASES (a YAML list of questions with `allowed`); the exit code is 65 where one fails."""
    import yaml

    try:
        asked = yaml.safe_load(cases.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{cases}: {error}", param_hint="CASES") from None
    body = {"cases": asked, "policies": read(candidates)}
    done = run(options_of(context), lambda api: api.call("POST", api.path("policies", "test"), body))
    if output != "table":
        out.show(done, output)
    else:
        for one in done["results"]:
            got = one["got"]
            verdict = "ok  " if one["passed"] else "FAIL"
            click.echo(clean(f"{verdict} {_sentence(got)}; expected {'allowed' if one['expected'] else 'refused'}"))
    if not done["passed"]:
        raise click.exceptions.Exit(65)


@policies.command(
    name="explain", epilog="Example: chimera policies explain agent:invoke clerk --as key:0123456789abcdef"
)
@click.argument("action")
@click.argument("agent", required=False)
@click.option("--as", "principal", help="key:ID, user:ISSUER|SUBJECT or agent:NAME; default: whoever asks.")
@click.option(
    "--role", "roles", multiple=True, type=click.Choice(ROLES), help="A role that the user's token would say."
)
@click.option("--name", help="The session, task or other thing that it is about.")
@click.option("--protocol", default="http", show_default=True, help="How it is asked: http, openai, agent.")
@out.output_option
@click.pass_context
def explain(
    context: click.Context,
    /,
    action: str,
    agent: str | None,
    principal: str | None,
    roles: tuple[str, ...],
    name: str | None,
    protocol: str,
    output: str,
) -> None:
    """Say whether ACTION on AGENT would be allowed, and which policies decide."""
    body: dict[str, Any] = {"action": action, "roles": roles, "protocol": protocol}
    body |= {"agent": agent} if agent else {}
    body |= {"principal": principal} if principal else {}
    body |= {"name": name} if name else {}
    got = run(options_of(context), lambda api: api.call("POST", api.path("policies", "explain"), body))
    if output != "table":
        out.show(got, output)
        return
    click.echo(clean(_sentence(got)))
    for error in got["errors"]:
        click.echo(clean(f"  failed: {error}"))
    for reason, text in got["policies"].items():
        click.echo(clean(f"  {reason}:"))
        for line in text.splitlines():
            click.echo(clean(f"    {line}"))


def read(paths: tuple[Path, ...]) -> dict[str, str | None]:
    """Policy texts by the names of their files; a name may be there once."""
    found: dict[str, str | None] = {}
    for path in paths:
        files = sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
        for file in files:
            name = file.name.removesuffix(SUFFIX)
            if name in found:
                raise click.UsageError(f"Two files would be the policy {name!r}, one of them {file}.")
            try:
                found[name] = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise click.UsageError(f"{file}: {error}") from None
    return found


def _sentence(got: dict[str, Any]) -> str:
    verdict = "may" if got["allowed"] else "may not"
    return f"{got['principal']} {verdict} {got['action']} on {got['resource']} ({', '.join(got['reasons'])})"
