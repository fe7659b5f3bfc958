"""`chimera events`: what happens, who is told of it, and what could not be delivered."""

import asyncio
from typing import Any
from urllib.parse import urlencode

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.identity import Duration, limit_option, pages
from chimera.entrypoints.cli.text import clean, shown

COLUMNS = (
    ("name", "NAME"),
    ("state", "STATE"),
    ("receiver", "RECEIVER"),
    ("behind", "BEHIND"),
    ("pending", "PENDING"),
    ("dead_letters", "DEAD LETTERS"),
    ("delivered", "DELIVERED"),
    ("failure", "LAST FAILURE"),
)
LETTER_COLUMNS = (
    ("letter", "DEAD LETTER"),
    ("agent", "AGENT"),
    ("subscription", "SUBSCRIPTION"),
    ("type", "TYPE"),
    ("subject", "SUBJECT"),
    ("attempts", "ATTEMPTS"),
    ("died", "GIVEN UP"),
    ("reason", "WHY"),
)
TYPE_COLUMNS = (("type", "TYPE"), ("subject", "SUBJECT"), ("meaning", "MEANING"))
PAUSE = 1.0
ROUNDS = 1_000
"""Most requests of up to 1,000 dead letters that one command makes."""

type_option = click.option(
    "--type", "types", multiple=True, help="Only types that begin with this, such as task.failed."
)
subject_option = click.option(
    "--subject", "subjects", multiple=True, help="Only subjects that begin with this, such as agents/anna."
)


@click.group(epilog="Example: chimera events tail --follow --type task.")
def events() -> None:
    """Follow what happens, and have it sent to receivers. With --tenant '*' that of all tenants."""


@events.command(name="tail", epilog="Example: chimera events tail --last 20 --follow --type agent. --output json")
@click.option("--last", type=click.IntRange(0, 1_000), default=20, show_default=True, help="Begin so many before now.")
@click.option("--after", type=click.IntRange(min=0), help="Begin behind this place instead.")
@click.option("-f", "--follow", is_flag=True, help="Go on with events as they happen.")
@type_option
@subject_option
@out.output_option
@click.pass_context
def tail(context: click.Context, /, last: int, after: int | None, follow: bool, output: str, **narrow: Any) -> None:
    """Print the newest events, or those behind a place, oldest first."""
    query = {name[:-1]: ",".join(texts) for name, texts in narrow.items() if texts}

    async def work(api: Api) -> None:
        if after is not None:
            page: dict[str, Any] = {"events": [], "next": after, "more": True}
        elif last:
            page = await api.call("GET", api.path("events"), query={**query, "last": last})
        else:
            page = await api.call("GET", api.path("events"), query={**query, "last": 1})
            page["events"] = []
        _print(page["events"], output)
        if follow:
            await _follow(api, query, page["next"], output)
            return
        while page["more"]:
            page = await api.call("GET", api.path("events"), query={**query, "after": page["next"], "limit": 1_000})
            _print(page["events"], output)

    run(options_of(context), work)


@events.command(name="types", epilog="Example: chimera events types --output json")
@out.output_option
@click.pass_context
def types(context: click.Context, output: str) -> None:
    """List every type of event; with --output json, the JSON Schema of its data too."""
    found = run(options_of(context), lambda api: api.call("GET", "/v1/event-types"))["types"]
    out.show(found, output, columns=TYPE_COLUMNS, rows=found)


@events.command(name="list", epilog="Example: chimera events list")
@limit_option
@out.output_option
@click.pass_context
def list_subscriptions(context: click.Context, /, limit: int, output: str) -> None:
    """List subscriptions, and how far each is."""
    rows = run(options_of(context), lambda api: pages(api, api.path("subscriptions"), "subscriptions", limit))
    told = [
        {
            **row,
            "state": row["state"] if not row["why"] else f"{row['state']} ({row['why']})",
            "receiver": row["url"].split("/", 3)[2] if row["url"] else "each task's own",
            "delivered": out.moment(row["delivered"]),
        }
        for row in rows
    ]
    out.show(rows, output, columns=COLUMNS, rows=told)


@events.command(name="subscribe", epilog="Example: chimera events subscribe ci https://ci.example/hook --type task.")
@click.argument("name")
@click.argument("url")
@type_option
@subject_option
@click.option("--from", "start", default="now", show_default=True, help="now, beginning, or a place.")
@click.option(
    "--mode", type=click.Choice(["structured", "binary"]), default="structured", show_default=True, help="The form."
)
@click.option("--secret", help="Where the secret is, secret:webhook.TENANT.NAME; default: one is made and printed.")
@out.output_option
@click.pass_context
def subscribe(
    context: click.Context,
    /,
    name: str,
    url: str,
    start: str,
    mode: str,
    secret: str | None,
    output: str,
    **narrow: Any,
) -> None:
    """Have events sent to URL as the subscription NAME."""
    body = {"name": name, "url": url, "mode": mode, "from": _start(start), **narrow}
    body |= {"secret": secret} if secret else {}
    made = run(options_of(context), lambda api: api.call("POST", api.path("subscriptions"), body))
    _show_secret(made, output)


@events.command(name="show", epilog="Example: chimera events show ci")
@click.argument("name")
@out.output_option
@click.pass_context
def show(context: click.Context, name: str, output: str) -> None:
    """Show the subscription NAME: its filters, where it is, and why it is paused."""
    found = run(options_of(context), lambda api: api.call("GET", api.path("subscriptions", name)))
    out.show(found, "json" if output == "json" else "yaml")


@events.command(name="pause", epilog="Example: chimera events pause ci")
@click.argument("name")
@out.output_option
@click.pass_context
def pause(context: click.Context, name: str, output: str) -> None:
    """Send nothing more to the subscription NAME until it is resumed."""
    done = run(options_of(context), lambda api: api.call("POST", api.path("subscriptions", name, "pause")))
    _say(done, output, f"{name} is paused at place {done['position']}")


@events.command(name="resume", epilog="Example: chimera events resume ci --from now")
@click.argument("name")
@click.option("--from", "start", help="now, beginning, or a place; default: where it was.")
@out.output_option
@click.pass_context
def resume(context: click.Context, name: str, start: str | None, output: str) -> None:
    """Go on with the subscription NAME, where it was or from another place."""
    body = {} if start is None else {"from": _start(start)}
    done = run(options_of(context), lambda api: api.call("POST", api.path("subscriptions", name, "resume"), body))
    _say(done, output, f"{name} goes on behind place {done['position']}")


@events.command(name="rotate", epilog="Example: chimera events rotate ci --overlap 2h")
@click.argument("name")
@click.option("--overlap", type=Duration(), help="How long the old secret signs, too; default: a day.")
@out.output_option
@click.pass_context
def rotate(context: click.Context, name: str, overlap: float | None, output: str) -> None:
    """Give the subscription NAME a new secret, printed once."""
    body = {} if overlap is None else {"overlap": overlap}
    made = run(options_of(context), lambda api: api.call("POST", api.path("subscriptions", name, "rotate"), body))
    _show_secret(made, output)


@events.command(name="delete", epilog="Example: chimera events delete ci")
@click.argument("name")
@out.output_option
@click.pass_context
def delete(context: click.Context, name: str, output: str) -> None:
    """Delete the subscription NAME with its dead letters."""
    run(options_of(context), lambda api: api.call("DELETE", api.path("subscriptions", name)))
    _say({"deleted": name}, output, f"{name} is deleted")


@events.group(name="dead-letters", epilog="Example: chimera events dead-letters replay --subscription ci")
def dead_letters() -> None:
    """Events that a receiver did not take."""


@dead_letters.command(name="list", epilog="Example: chimera events dead-letters list --subscription ci")
@click.option("--subscription", help="Only those of this subscription; tasks: those of tasks' webhooks.")
@click.option("--agent", help="Only those of this agent, or of its --subscription.")
@limit_option
@out.output_option
@click.pass_context
def list_letters(
    context: click.Context, /, subscription: str | None, agent: str | None, limit: int, output: str
) -> None:
    """List dead letters, oldest first."""
    named = {"subscription": subscription, "agent": agent}
    query = {name: value for name, value in named.items() if value is not None}
    rows = run(options_of(context), lambda api: pages(api, api.path("dead-letters"), "dead_letters", limit, query))
    told = [
        {
            **row,
            "type": row["event"]["type"],
            "subject": row["event"].get("subject", ""),
            "died": out.moment(row["died"]),
        }
        for row in rows
    ]
    out.show(rows, output, columns=LETTER_COLUMNS, rows=told)


@dead_letters.command(name="show", epilog="Example: chimera events dead-letters show dl_01jd2k")
@click.argument("letter")
@out.output_option
@click.pass_context
def show_letter(context: click.Context, letter: str, output: str) -> None:
    """Show a dead LETTER: its event, and why it was given up."""
    found = run(options_of(context), lambda api: api.call("GET", api.path("dead-letters", letter)))
    out.show(found, "json" if output == "json" else "yaml")


@dead_letters.command(name="replay", epilog="Example: chimera events dead-letters replay dl_01jd2k")
@click.argument("letters", nargs=-1)
@click.option("--subscription", help="All of this subscription instead.")
@click.option("--agent", help="All of this agent instead, or of its --subscription.")
@out.output_option
@click.pass_context
def replay(
    context: click.Context, letters: tuple[str, ...], subscription: str | None, agent: str | None, output: str
) -> None:
    """Have dead LETTERS delivered again, late and out of their order."""
    count = _settle(context, "replay", letters, subscription, agent)
    _say({"dead_letters": count}, output, f"{count} dead letters are delivered again")


@dead_letters.command(name="drop", epilog="Example: chimera events dead-letters drop dl_01jd2k")
@click.argument("letters", nargs=-1)
@click.option("--subscription", help="All of this subscription instead.")
@click.option("--agent", help="All of this agent instead, or of its --subscription.")
@out.output_option
@click.pass_context
def drop(
    context: click.Context, letters: tuple[str, ...], subscription: str | None, agent: str | None, output: str
) -> None:
    """Remove dead LETTERS for good."""
    count = _settle(context, "drop", letters, subscription, agent)
    _say({"dead_letters": count}, output, f"{count} dead letters are dropped")


def _settle(
    context: click.Context, verb: str, letters: tuple[str, ...], subscription: str | None, agent: str | None
) -> int:
    named = {name: text for name, text in (("subscription", subscription), ("agent", agent)) if text is not None}
    if bool(letters) == bool(named):
        raise click.UsageError("Name dead letters, or give --subscription or --agent.")

    async def work(api: Api) -> int:
        body = {"dead_letters": letters} if letters else named
        count = 0
        for _ in range(ROUNDS):
            done = await api.call("POST", api.path("dead-letters", verb), body)
            count += done["dead_letters"]
            if not done["more"]:
                break
        return count

    return run(options_of(context), work)


async def _follow(api: Api, query: dict[str, str], place: int, output: str) -> None:
    """Print events for ever; a stream that ends is resumed behind the last event that came."""
    while True:
        ended = False
        found = api.events(api.path("events") + _encoded(query), headers={"Last-Event-ID": str(place)})
        async for name, data in found:
            if name == "error":
                ended = True
                click.echo(shown(f"{data['detail']}"), err=True)
                continue
            place = int(data["sequence"])
            _print([data], output)
        if ended:
            raise click.ClickException("the stream was ended")
        await asyncio.sleep(PAUSE)


def _encoded(query: dict[str, str]) -> str:
    return f"?{urlencode(query)}" if query else ""


def _print(several: list[dict[str, Any]], output: str) -> None:
    for one in several:
        if output != "table":
            out.show_next(one, output)
        else:
            data = " ".join(f"{name}={value}" for name, value in one["data"].items())
            kind = one["type"].removeprefix("chimera.")
            click.echo(clean(f"{int(one['sequence'])} {one['time'][:19]}Z {kind} {one['subject']} {data}"))


def _start(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _say(done: Any, output: str, sentence: str) -> None:
    if output == "table":
        click.echo(clean(sentence))
    else:
        out.show(done, output)


def _show_secret(made: dict[str, Any], output: str) -> None:
    if output != "table":
        out.show(made, output)
        return
    one = made["subscription"]
    words = [f"{one['name']} is {one['state']}, behind place {one['position']}."]
    if made.get("secret"):
        click.echo(made["secret"])
        words.append("Keep the secret: it is not shown again.")
    if one["previous_until"] is not None:
        words.append(f"The old one signs, too, until {out.moment(one['previous_until'])}.")
    click.echo(clean(" ".join(words)), err=True)
