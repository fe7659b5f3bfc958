"""`chimera sbom` and `chimera provenance`: what a revision is made of, and where it comes from."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.places import home_folder
from chimera.entrypoints.cli.text import clean

COMPONENTS = (("type", "TYPE"), ("name", "NAME"), ("version", "VERSION"), ("purl", "PACKAGE URL"))
SAID = (("name", "WHAT"), ("outcome", "OUTCOME"), ("at", "AT"), ("detail", "DETAIL"))
KEYS_FILE = "provenance/public-keys"


@click.command(epilog="Example: chimera sbom invoice-auditor --output json > invoice-auditor.cdx.json")
@click.argument("agent")
@click.option("--revision", help="The revision's digest; default: the live one.")
@out.output_option
@click.pass_context
def sbom(context: click.Context, /, agent: str, revision: str | None, output: str) -> None:
    """Show what AGENT is made of: packages, model, tools, prompts, image. As JSON it is a CycloneDX document."""
    found = run(options_of(context), lambda api: _get(api, agent, "sbom", revision))
    rows = [*found["components"], *({**one, "type": "service"} for one in found.get("services", ()))]
    out.show(found, output, columns=COMPONENTS, rows=rows)


class Provenance(click.Group):
    """A group in which the name of an agent alone means `show`."""

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; an agent that is named as a command is shown by `show`."""
        known = not args or args[0] in self.commands or args[0].startswith("-")
        return super().resolve_command(context, args if known else ["show", *args])


@click.group(cls=Provenance, epilog="Example: chimera provenance invoice-auditor")
def provenance() -> None:
    """Show where an agent's revision comes from (`chimera provenance AGENT`), and check a file that says so."""


@provenance.command(epilog="Example: chimera provenance show invoice-auditor --output json > auditor.intoto.json")
@click.argument("agent")
@click.option("--revision", help="The revision's digest; default: the live one.")
@out.output_option
@click.pass_context
def show(context: click.Context, /, agent: str, revision: str | None, output: str) -> None:
    """Show which change brought AGENT's revision, what was found and who approved; as JSON the signed envelope."""
    envelope = run(options_of(context), lambda api: _get(api, agent, "provenance", revision))
    if output == "table":
        import base64
        import json

        _told(json.loads(base64.b64decode(envelope["payload"])))
        click.echo(f"signed by  {clean(', '.join(one['keyid'] for one in envelope['signatures']))}")
    else:
        out.show(envelope, output)


@provenance.command(epilog="Example: chimera provenance verify auditor.intoto.json --public-key keys.txt")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--public-key", "public_keys", multiple=True, help="A public key, or a file of keys; default: the home's."
)
@click.option("--revision", help="Refuse it where it is of another revision than this digest.")
@out.output_option
@click.pass_context
def verify(
    context: click.Context, /, file: Path, public_keys: tuple[str, ...], revision: str | None, output: str
) -> None:
    """Check FILE against the platform's public keys, asking nobody; ends with 65 if it was altered in any byte."""
    from chimera.adapters.signing.ed25519 import check_signature
    from chimera.delivery.evidence.envelope import open_envelope, read
    from chimera.delivery.evidence.errors import ForgedEvidence

    statement = open_envelope(read(file.read_bytes()), _ring(context, public_keys), check_signature)
    digests = ["sha256:" + one["digest"].get("sha256", "") for one in statement["subject"]]
    if revision is not None and revision not in digests:
        raise ForgedEvidence(
            f"it is signed, and of another revision: {digests[0][:80]}", next_step="give the file of that revision"
        )
    if output == "table":
        _told(statement)
        click.echo("It is signed by the platform, and was not altered.")
    else:
        out.show(statement, output)


@provenance.command(epilog="Example: chimera provenance keys > keys.txt")
@out.output_option
@click.pass_context
def keys(context: click.Context, /, output: str) -> None:
    """List the public keys that check provenance. Keep them where who writes the platform's files can't."""

    async def ask(api: Api) -> Any:
        return await api.call("GET", "/v1/provenance/keys")

    found = run(options_of(context), ask)["keys"]
    if output == "table":
        for key in found:
            click.echo(key)
    else:
        out.show(found, output)


@provenance.command(epilog="Example: chimera provenance rotate")
@out.output_option
@click.pass_context
def rotate(context: click.Context, /, output: str) -> None:
    """Put a new signing key in the place of the home's. What older ones signed can still be checked."""
    from chimera.adapters.signing.ring import FileRing

    made = FileRing(home_folder(options_of(context))).rotate()
    out.show({"key": made}, output, columns=(("key", "SIGNS FROM NOW ON"),), rows=[{"key": made}])


async def _get(api: Api, agent: str, what: str, revision: str | None) -> Any:
    query = {} if revision is None else {"revision": revision}
    return await api.call("GET", api.path("agents", agent) + "/" + quote(what), query=query)


def _ring(context: click.Context, given: Sequence[str]) -> dict[str, bytes]:
    from chimera.adapters.signing.ring import ring_of

    lines: list[str] = []
    for one in given or (str(home_folder(options_of(context)) / KEYS_FILE),):
        file = Path(one)
        if file.exists():
            lines += file.read_text("utf-8").splitlines()
        elif "+" in one:
            lines.append(one)
        else:
            raise click.UsageError(f"There is no file of public keys at {one}; `chimera provenance keys` prints them.")
    return ring_of(lines)


def _told(statement: dict[str, Any]) -> None:
    """A statement for people."""
    definition = statement["predicate"]["buildDefinition"]
    run_details = statement["predicate"]["runDetails"]
    subject = statement["subject"][0]
    lines = [
        ("agent", subject["name"]),
        ("revision", f"sha256:{subject['digest'].get('sha256')}"),
        ("change", f"{run_details['metadata']['invocationId']}: {definition['externalParameters']['title']}"),
        ("author", definition["externalParameters"]["author"]),
        ("risk", definition["internalParameters"]["risk"]),
        *((one["name"], _dependency(one)) for one in definition["resolvedDependencies"]),
    ]
    for name, value in lines:
        click.echo(f"{name:<11}{clean(str(value))}")
    click.echo()
    out.table(SAID, list(_said(run_details["byproducts"])))
    sys.stdout.flush()


def _dependency(one: dict[str, Any]) -> str:
    return " ".join([one.get("uri", ""), *(f"{kind}:{value}" for kind, value in one["digest"].items())]).strip()


def _said(products: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in products:
        said = one.get("annotations")
        if said is not None:
            outcome = said.get("outcome") or said.get("decision") or "pushed"
            detail = said.get("detail") or said.get("comment") or said.get("reason")
            yield {"name": one["name"], "outcome": outcome, "at": said.get("at"), "detail": detail}
