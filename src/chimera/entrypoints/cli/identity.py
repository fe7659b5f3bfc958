"""`chimera keys`, `tenants` and `roles`: who may ask, and what they may ask for."""

from collections.abc import Mapping
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.text import clean

PAGE = 1_000
ROLES = ("viewer", "operator", "approver", "admin", "agent")
KEY_COLUMNS = (
    ("id", "KEY"),
    ("name", "NAME"),
    ("roles", "ROLES"),
    ("scopes", "SCOPES"),
    ("agents", "AGENTS"),
    ("state", "STATE"),
    ("used", "LAST USED"),
)
TENANT_COLUMNS = (("name", "TENANT"), ("status", "STATUS"), ("since", "SINCE"), ("by", "BY"))
GRANT_COLUMNS = (("principal", "USER"), ("roles", "ROLES"), ("since", "SINCE"), ("by", "BY"))
limit_option = click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Most entries to list."
)


class Duration(click.ParamType[float]):
    """A duration such as 30s, 12h or 90d, as seconds."""

    name = "duration"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """Seconds."""
        from chimera.agents.quantities import seconds

        try:
            return float(value) if isinstance(value, (int, float)) else seconds(value)
        except ValueError as error:
            self.fail(str(error), parameter, context)


@click.group(epilog="Example: chimera keys create ci --role operator --expires 90d")
def keys() -> None:
    """Make, list, rotate and revoke API keys."""


@keys.command(name="create", epilog="Example: chimera keys create shop --role agent --agent clerk --expires 90d")
@click.argument("name")
@click.option("--role", "roles", multiple=True, required=True, type=click.Choice(ROLES), help="A role; may repeat.")
@click.option("--scope", "scopes", multiple=True, help="Narrow it to an action or thing (agent:invoke, session:*).")
@click.option("--agent", "agents", multiple=True, help="Narrow it to an agent; may repeat.")
@click.option("--expires", type=Duration(), help="How long it lives, such as 12h or 90d; default: until revoked.")
@out.output_option
@click.pass_context
def create_key(
    context: click.Context,
    /,
    name: str,
    roles: tuple[str, ...],
    scopes: tuple[str, ...],
    agents: tuple[str, ...],
    expires: float | None,
    output: str,
) -> None:
    """Make a key called NAME. Its secret is printed once and can't be had again."""
    body: dict[str, Any] = {"name": name, "roles": roles}
    body |= {"scopes": scopes} if scopes else {}
    body |= {"agents": agents} if agents else {}
    body |= {"expires_in": expires} if expires is not None else {}
    made = run(options_of(context), lambda api: api.call("POST", api.path("keys"), body))
    _show_secret(made, output)


@keys.command(name="list", epilog="Example: chimera keys list --output json")
@limit_option
@out.output_option
@click.pass_context
def list_keys(context: click.Context, /, limit: int, output: str) -> None:
    """List keys; secrets are not stored and so never shown."""
    rows = run(options_of(context), lambda api: pages(api, api.path("keys"), "keys", limit))
    told = [{**row, "state": _state(row), "used": out.moment(row["last_used"])} for row in rows]
    out.show(rows, output, columns=KEY_COLUMNS, rows=told)


@keys.command(name="rotate", epilog="Example: chimera keys rotate 0123456789abcdef --overlap 2h")
@click.argument("key")
@click.option("--overlap", type=Duration(), help="How long the old secret goes on; default: a day.")
@out.output_option
@click.pass_context
def rotate_key(context: click.Context, /, key: str, overlap: float | None, output: str) -> None:
    """Give KEY a new secret, printed once; the old one goes on for a while, so that nobody is cut off."""
    body = {} if overlap is None else {"overlap": overlap}
    made = run(options_of(context), lambda api: api.call("POST", api.path("keys", key, "rotate"), body))
    _show_secret(made, output)


@keys.command(name="revoke", epilog="Example: chimera keys revoke 0123456789abcdef")
@click.argument("key")
@out.output_option
@click.pass_context
def revoke_key(context: click.Context, key: str, output: str) -> None:
    """Revoke KEY: it is refused from here on, whatever secret is shown."""
    done = run(options_of(context), lambda api: api.call("DELETE", api.path("keys", key)))
    _say(done, output, f"{key} is revoked")


@click.group(epilog="Example: chimera tenants create acme")
def tenants() -> None:
    """Make, list, suspend and resume tenants."""


@tenants.command(name="create", epilog="Example: chimera tenants create acme")
@click.argument("name")
@out.output_option
@click.pass_context
def create_tenant(context: click.Context, name: str, output: str) -> None:
    """Make the tenant NAME."""
    made = run(options_of(context), lambda api: api.call("POST", "/v1/tenants", {"name": name}))
    _say(made, output, f"{made['name']} is {made['status']}")


@tenants.command(name="list", epilog="Example: chimera tenants list")
@limit_option
@out.output_option
@click.pass_context
def list_tenants(context: click.Context, /, limit: int, output: str) -> None:
    """List tenants."""
    rows = run(options_of(context), lambda api: pages(api, "/v1/tenants", "tenants", limit))
    told = [{**row, "since": out.moment(row["updated"])} for row in rows]
    out.show(rows, output, columns=TENANT_COLUMNS, rows=told)


@tenants.command(name="suspend", epilog="Example: chimera tenants suspend acme")
@click.argument("name")
@out.output_option
@click.pass_context
def suspend_tenant(context: click.Context, name: str, output: str) -> None:
    """Suspend the tenant NAME: its data stays, and nothing is done for it."""
    _set_tenant(context, name, "suspend", output)


@tenants.command(name="resume", epilog="Example: chimera tenants resume acme")
@click.argument("name")
@out.output_option
@click.pass_context
def resume_tenant(context: click.Context, name: str, output: str) -> None:
    """Resume the tenant NAME."""
    _set_tenant(context, name, "resume", output)


@click.group(epilog="Example: chimera roles set 'user:https://login.example.com|anna' operator approver")
def roles() -> None:
    """Give users roles beside those that their tokens say."""


@roles.command(name="set", epilog="Example: chimera roles set 'user:https://login.example.com|anna' operator")
@click.argument("user")
@click.argument("names", nargs=-1, type=click.Choice(ROLES))
@out.output_option
@click.pass_context
def set_roles(context: click.Context, user: str, names: tuple[str, ...], output: str) -> None:
    """Give USER (`user:ISSUER|SUBJECT`) the roles NAMES and no others; without NAMES, none."""
    body = {"principal": user, "roles": names}
    done = run(options_of(context), lambda api: api.call("PUT", api.path("roles"), body))
    _say(done, output, f"{done['principal']}: {', '.join(done['roles']) or 'no roles'}")


@roles.command(name="list", epilog="Example: chimera roles list --output json")
@limit_option
@out.output_option
@click.pass_context
def list_roles(context: click.Context, /, limit: int, output: str) -> None:
    """List the roles given to users."""
    rows = run(options_of(context), lambda api: pages(api, api.path("roles"), "grants", limit))
    told = [{**row, "since": out.moment(row["updated"])} for row in rows]
    out.show(rows, output, columns=GRANT_COLUMNS, rows=told)


async def pages(
    api: Api, path: str, field: str, limit: int, narrow: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """At most `limit` rows of a paged list, narrowed by the query `narrow`."""
    rows: list[dict[str, Any]] = []
    after = ""
    while len(rows) < limit:
        query = {**(narrow or {}), "after": after, "limit": min(PAGE, limit - len(rows))}
        answer = await api.call("GET", path, query=query)
        rows += answer[field]
        if answer["next"] is None:
            break
        after = answer["next"]
    return rows


def _set_tenant(context: click.Context, name: str, verb: str, output: str) -> None:
    # The tenant is what is changed, not the one to work in.
    options = {**options_of(context), "tenant": name}
    done = run(options, lambda api: api.call("POST", api.path(verb)))
    _say(done, output, f"{done['name']} is {done['status']}")


def _say(done: Any, output: str, sentence: str) -> None:
    """What was done, in one sentence for people or in full for programs."""
    if output == "table":
        click.echo(clean(sentence))
    else:
        out.show(done, output)


def _show_secret(made: Mapping[str, Any], output: str) -> None:
    if output != "table":
        out.show(made, output)
        return
    key = made["key"]
    click.echo(made["token"])
    words = [f"Key {key['id']} ({key['name']}) in tenant {key['tenant']}: {', '.join(key['roles'])}."]
    if key["expires"] is not None:
        words.append(f"It ends at {out.moment(key['expires'])}.")
    if key["previous_until"] is not None:
        words.append(f"Its old secret goes on until {out.moment(key['previous_until'])}.")
    words.append("Keep the secret: it is not shown again.")
    click.echo(clean(" ".join(words)), err=True)


def _state(row: Mapping[str, Any]) -> str:
    if row["revoked"] is not None:
        return "revoked"
    return "for ever" if row["expires"] is None else f"until {out.moment(row['expires'])}"
