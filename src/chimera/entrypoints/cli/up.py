"""`chimera up`: start everything on this machine, or lead to a cluster, in the foreground, until Ctrl-C."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import options_of
from chimera.entrypoints.cli.failing import UNAVAILABLE
from chimera.entrypoints.cli.places import home_folder, kubeconfig_of
from chimera.kernel.places import default_home

MACHINE, KNATIVE = "machine", "knative"
IN_CLUSTER = ("port", "kubeconfig", "namespace", "image", "replicas", "database_secret", "wait", "address")
"""Options that mean something in a cluster; all but the port mean nothing on one machine."""


@click.command(epilog="Example: chimera up --port 9000 --model local")
@click.option(
    "--substrate",
    type=click.Choice([MACHINE, KNATIVE]),
    default=MACHINE,
    show_default=True,
    help="Where hosts run: on this machine, or in a cluster with Knative.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address; other than loopback wants TLS or --behind-proxy."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--allow-host", multiple=True, help="A further name that callers may use for this machine.")
@click.option("--tls-certificate", type=click.Path(exists=True, dir_okay=False), help="Certificate chain (PEM).")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), help="Its private key (PEM).")
@click.option("--behind-proxy", is_flag=True, help="A proxy in front of it ends TLS.")
@click.option(
    "--model",
    type=click.Choice(["settings", "local", "scripted"]),
    default="settings",
    show_default=True,
    help="What answers the model `default`: the settings (else the bundled model), the bundled one, or a script.",
)
@click.option("--script", type=click.Path(exists=True, dir_okay=False), help="The scripted model's rules.")
@click.option("--no-fork", is_flag=True, help="Start hosts whole instead of forking them.")
@click.option("--no-limits", is_flag=True, help="Use no control groups.")
@click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False),
    help="The cluster; default: $KUBECONFIG, else the one this is a pod of.",
)
@click.option("--namespace", default="chimera", show_default=True, help="In a cluster: the platform's namespace.")
@click.option(
    "--image", default="chimera-platform:0.1.0", show_default=True, help="In a cluster: the platform's image."
)
@click.option("--replicas", type=click.IntRange(1, 100), default=3, show_default=True, help="In a cluster: of each.")
@click.option(
    "--database-secret",
    default="chimera-database",
    show_default=True,
    help="In a cluster: the Secret with the database's password; empty: none is needed.",
)
@click.option(
    "--wait", type=click.FloatRange(0), default=300.0, show_default=True, help="In a cluster: seconds to wait."
)
@click.option(
    "--address", help="In a cluster: the gateway's URL from here; default: a port of this machine leads there."
)
@out.output_option
@click.pass_context
def up(context: click.Context, /, substrate: str, output: str, **options: Any) -> int:
    """Start Chimera on this machine and keep it running until Ctrl-C.

    With --substrate knative it is installed in the cluster unless it is there, and the other commands reach it from
    this home until Ctrl-C (with --address for good); the platform goes on in the cluster.
    """
    shared = options_of(context)
    home = home_folder(shared)
    program = "supervisor"
    if substrate == KNATIVE:
        options["kubeconfig"] = kubeconfig_of(options, os.environ)
        program, options = "reach", {name: options[name] for name in IN_CLUSTER}
    else:
        options = {name: value for name, value in options.items() if name not in IN_CLUSTER[1:]}
    process, where = start(home, options, program)
    if where is None:
        return process.wait() or UNAVAILABLE
    if output == "table":
        announce(where) if substrate == MACHINE else announce_cluster(where, lasting=options["address"] is not None)
    else:
        out.show(where, output)
        sys.stdout.flush()
    return wait(process)


def start(
    home: Path, options: dict[str, Any], program: str = "supervisor"
) -> tuple["subprocess.Popen[bytes]", dict[str, Any] | None]:
    """Start the program and wait until all is up; where it listens, or None if it ended instead."""
    read, write = os.pipe()
    command = [sys.executable, "-m", f"chimera.bootstrap.{program}", "--home", str(home), "--ready-fd", str(write)]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            command.append(flag)
        elif isinstance(value, tuple):
            for one in value:
                command += [flag, str(one)]
        elif value is not None and value is not False:
            command += [flag, str(value)]
    # A group of its own: Ctrl-C reaches this process alone, which then ends the others in order.
    process = subprocess.Popen(command, pass_fds=(write,), stdin=subprocess.DEVNULL, start_new_session=True)
    os.close(write)
    with os.fdopen(read, "rb") as ready:
        try:
            line = ready.readline()
        except KeyboardInterrupt:
            stop(process)
            raise
    return process, msgspec.json.decode(line) if line else None


def announce(where: dict[str, Any]) -> None:
    """Say where it is and how to use it."""
    url, key = where["public"], Path(where["home"]) / "chimera.key"
    click.echo(f"Chimera is up at {url} (home {where['home']}). Ctrl-C stops it.")
    for name, shown in where["models"].items():
        click.echo(f"  model {name}: {shown}")
    click.echo(f"  audit log: its public key is in {where['audit_keys']}; keep a copy on another machine")
    _next_steps(url, key, Path(where["home"]))


def announce_cluster(where: dict[str, Any], *, lasting: bool) -> None:
    """The same of a platform in a cluster; `lasting` where this command ends and the way to it stays."""
    url, home = where["public"], Path(where["home"])
    done = "was installed" if where["installed"] else "is there (`chimera install` brings it up to date)"
    click.echo(f"Chimera {done} in namespace {where['namespace']} of {where['cluster']}.")
    click.echo(f"It is reached at {url}, by all commands with the home {home}" + ("." if lasting else " until Ctrl-C."))
    click.echo("It goes on in the cluster when this ends; `chimera uninstall --substrate knative` takes it out.")
    _next_steps(url, home / "run" / "cluster.key", home)


def _next_steps(url: str, key: Path, home: Path) -> None:
    click.echo("\nUse it from another terminal:")
    if home != default_home({name: value for name, value in os.environ.items() if name != "CHIMERA_HOME"}):
        click.echo(f"  export CHIMERA_HOME={shlex.quote(str(home))}")
    click.echo("  chimera init hello && chimera apply hello.yaml && chimera invoke hello 'What can you do?'")
    click.echo("\nPoint an OpenAI client at it (model: agent/<name>):")
    click.echo(f"  export OPENAI_BASE_URL={url}/v1")
    click.echo(f'  export OPENAI_API_KEY="$(cat {key})"')


def wait(process: "subprocess.Popen[bytes]") -> int:
    """Wait for the end; Ctrl-C and SIGTERM end it in order."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return process.wait()
    except KeyboardInterrupt:
        click.echo("\nStopping …", err=True)
        stop(process)
        return 0


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End the supervisor, and with it everything else."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
