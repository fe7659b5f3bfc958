"""`chimera host check`: runs the host's own checker, which knows the contract."""

import json
import subprocess
import sys

import click

from chimera.entrypoints.cli import output as out

FRAMEWORKS = ("autogen", "crewai", "langgraph", "function")


@click.group(epilog="Example: chimera host check -- podman run --rm --network=host --env-host my-image:1")
def host() -> None:
    """See whether a host, or an image of one, keeps the contract."""


@host.command(epilog="Example: chimera host check -- podman run --rm --network=host --env-host my-image:1")
@click.argument("command", nargs=-1)
@click.option("--at", help="A host that runs, instead of COMMAND: its address, such as http://127.0.0.1:8080.")
@click.option("--host-key", default="", help="What the running host wants to be shown (its CHIMERA_HOST_KEY).")
@click.option("--token", default="", help="What it shows the platform (its CHIMERA_PLATFORM_TOKEN).")
@click.option(
    "--framework", type=click.Choice(FRAMEWORKS), default="function", show_default=True, help="Its framework."
)
@out.output_option
def check(command: tuple[str, ...], at: str | None, host_key: str, token: str, framework: str, output: str) -> int:
    """Start a host by COMMAND as a pod would, and check it rule by rule; the exit code is 1 if one is broken.

    COMMAND gets CHIMERA_ variables and PORT in its environment, and must listen on this machine's loopback. A running
    host must reach the loopback of this machine, where the checker stands in for the gateway.
    """
    if bool(command) == bool(at):
        raise click.UsageError("Give COMMAND after --, or the address of a running host with --at.")
    words = ["check", "--framework", framework, "--output", "table" if output == "table" else "json"]
    if at:
        words += ["--url", at, "--key", host_key, "--token", token]
    whole = [sys.executable, "-m", "chimera_host", *words, "--", *command]
    if output == "table":
        return subprocess.run(whole, check=False).returncode
    done = subprocess.run(whole, stdout=subprocess.PIPE, check=False)
    if done.stdout:
        out.show(json.loads(done.stdout), output)
    return done.returncode
