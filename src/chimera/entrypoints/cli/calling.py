"""`chimera invoke` and `chat`: an agent's answer as it comes."""

import sys
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.text import shown
from chimera.entrypoints.published.parameters import HEADER_KEY
from chimera.kernel.ids import new_id
from chimera_host.contract.problem import Problem, RemoteProblem


@click.command(epilog="Example: chimera invoke hello 'What can you do?'")
@click.argument("name")
@click.argument("text", required=False)
@click.option("--session", help="Carry the conversation under this id.")
@click.option("--subject", help="The person whom it is for: what is kept of it is found and erased by that.")
@click.option("--key", "idempotency", help="Name the work: the same key again goes on with it, or gives its answer.")
@click.option("--resume", is_flag=True, help="Go on with the session's unfinished work, without TEXT.")
@click.option("--deadline", type=click.FloatRange(min=0.1), help="Most seconds that it may take.")
@click.option("--no-stream", is_flag=True, help="Wait for the whole answer.")
@out.output_option
@click.pass_context
def invoke(
    context: click.Context,
    name: str,
    text: str | None,
    session: str | None,
    subject: str | None,
    idempotency: str | None,
    resume: bool,
    deadline: float | None,
    no_stream: bool,
    output: str,
) -> None:
    """Call the agent NAME with TEXT (from standard input where it isn't given), and stream its answer."""
    said = text if text is not None or resume else sys.stdin.read()
    body = {"input": said, "session": session, "subject": subject, "deadline": deadline, "resume": resume or None}
    body = {key: value for key, value in body.items() if value is not None}
    headers = {} if idempotency is None else {HEADER_KEY: idempotency}
    if output != "table" or no_stream:
        where = ("agents", name, "invoke")
        answer = run(options_of(context), lambda api: api.call("POST", api.path(*where), body, headers=headers))
        if output == "table":
            click.echo(shown(answer["output"]))
        else:
            out.show(answer, output)
        return
    run(options_of(context), lambda api: _stream(api, name, body, headers))


@click.command(epilog="Example: chimera chat hello")
@click.argument("name")
@click.option("--session", help="Go on with this session.")
@click.pass_context
def chat(context: click.Context, name: str, session: str | None) -> None:
    """Talk with the agent NAME; an empty line or Ctrl-D ends. The session goes on with --session."""
    session = session or new_id("session")
    click.echo(f"Session {session}; an empty line ends.", err=True)

    async def talk(api: Api) -> None:
        while said := _line():
            await _stream(api, name, {"input": said, "session": session})

    run(options_of(context), talk)
    click.echo(f"Go on with: chimera chat {name} --session {session}", err=True)


def _line() -> str:
    try:
        return input("you> ").strip()
    except EOFError:
        return ""


async def _stream(api: Api, name: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
    said: list[str] = []
    source = None
    async for event, data in api.events(api.path("agents", name, "invoke"), body, headers):
        match event:
            case "delta":
                if data.get("source") and data["source"] != source:
                    source = data["source"]
                    click.echo(("\n" if said else "") + click.style(shown(f"[{source}] "), dim=True), nl=False)
                click.echo(shown(data["text"]), nl=False)
                said.append(data["text"])
            case "error":
                click.echo()
                raise RemoteProblem(_problem(data))
            case "done":
                # A graph's or crew's answer may be made from the pieces, or be none of them.
                whole = str(data["output"]).strip()
                click.echo("" if "".join(said).strip().endswith(whole) else shown(f"\n{whole}" if said else whole))


def _problem(data: dict[str, Any]) -> Problem:
    import msgspec

    return msgspec.convert(data, Problem)
