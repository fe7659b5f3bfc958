"""`chimera install` and `chimera uninstall`: the platform in a cluster.

They run a program of their own (`chimera.bootstrap.install`), as `up` does, since only bootstrap knows adapters.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import options_of
from chimera.entrypoints.cli.places import home_folder, kubeconfig_of


def _shared(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--wait", type=click.FloatRange(0), default=300.0, show_default=True, help="Seconds to wait."),
        click.option(
            "--namespace", default="chimera", show_default=True, help="Namespace of the platform's processes."
        ),
        click.option(
            "--kubeconfig",
            type=click.Path(exists=True, dir_okay=False),
            help="The cluster; default: $KUBECONFIG, else the one this is a pod of.",
        ),
        click.option(
            "--substrate", type=click.Choice(["knative"]), required=True, help="What hosts run on in the cluster."
        ),
    ):
        function = option(function)
    return function


@click.command(epilog="Example: chimera install --substrate knative --dry-run -o yaml")
@_shared
@click.option("--image", default="chimera-platform:0.1.0", show_default=True, help="Image of the platform's processes.")
@click.option(
    "--replicas", type=click.IntRange(1, 100), default=3, show_default=True, help="Control planes, and gateways."
)
@click.option(
    "--database-secret",
    default="chimera-database",
    show_default=True,
    help="Secret whose key `password` is the database's; empty: none is needed.",
)
@click.option("--allow-host", multiple=True, help="A further name that callers may use for the gateway.")
@click.option(
    "--eventing/--no-eventing",
    default=None,
    help="Let events go to agents through a Broker of Knative Eventing; default: where the cluster has it.",
)
@click.option(
    "--monitors/--no-monitors",
    default=None,
    help="Add what Prometheus' operator reads; default: where the cluster knows its kinds.",
)
@click.option(
    "--monitoring",
    metavar="NAMESPACE",
    default="monitoring",
    show_default=True,
    help="Where Prometheus runs: the namespace that may read metrics.",
)
@click.option("--node-selector", multiple=True, metavar="LABEL=VALUE", help="A label of nodes for the platform's pods.")
@click.option(
    "--tolerate", multiple=True, metavar="KEY=VALUE:EFFECT", help="A taint of nodes that the platform's pods may use."
)
@click.option("--priority-class", default="", help="The PriorityClass of the platform's pods.")
@click.option(
    "--strict-spread",
    is_flag=True,
    help="Let a pod of the platform wait rather than share a zone or node more than it must.",
)
@click.option(
    "--egress",
    multiple=True,
    metavar="WHERE:PORT",
    help="Where control planes and gateways may connect to beside port 443 and the database, for Git hosts, "
    "advisories, registries, models, functions and receivers of events: addresses (203.0.113.0/24), a namespace, or * "
    "for any; of pods the port is their own.",
)
@click.option(
    "--ingress-namespace",
    metavar="NAMESPACE",
    default="kourier-system",
    show_default=True,
    help="Where the ingress that Knative uses runs: sleeping cells are woken through it.",
)
@click.option(
    "--advisories-claim",
    default="",
    metavar="NAME",
    help="A PersistentVolumeClaim of the platform's namespace that holds advisories; control planes read it.",
)
@click.option(
    "--repositories-size", default="8Gi", show_default=True, help="Room for clones in each control plane's pod."
)
@click.option(
    "--scans-size",
    default="20Gi",
    show_default=True,
    help="Room for the images that are fetched to be scanned in each control plane's pod.",
)
@click.option(
    "--control-plane-memory", default="6Gi", show_default=True, help="Most memory of each control plane's pod."
)
@click.option(
    "--warm-pool",
    type=click.IntRange(0, 1_000),
    help="Pods kept warm for each agent type, in place of the setting `knative.warm_pool`; 0 keeps none.",
)
@click.option("--yes", is_flag=True, help="Install though the cluster lacks what is told: room, a feature of Knative.")
@click.option("--dry-run", is_flag=True, help="Print what would be applied, and apply nothing.")
@out.output_option
@click.pass_context
def install(context: click.Context, /, dry_run: bool, substrate: str, **options: Any) -> int:
    """Put the platform into a cluster, or bring what is there up to date.

    Models, issuers and settings are those of the home's settings file; `node.database` names the PostgreSQL server.
    What warm pods cost is said before anything is applied, on standard error.
    """
    return _run(context, "render" if dry_run else "install", options)


@click.command(epilog="Example: chimera uninstall --substrate knative")
@_shared
@out.output_option
@click.pass_context
def uninstall(context: click.Context, /, substrate: str, **options: Any) -> int:
    """Take the platform and its cells out of a cluster. The database stays as it is."""
    return _run(context, "uninstall", options)


def _run(context: click.Context, action: str, options: dict[str, Any]) -> int:
    shared = options_of(context)
    home = home_folder(shared)
    if action != "render":
        options["kubeconfig"] = kubeconfig_of(options, os.environ)
    command = [sys.executable, "-m", "chimera.bootstrap.install", action, "--home", str(home)]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            command += [flag if value else "--no-" + flag[2:]]
            continue
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None:
                command += [f"{flag}={one}"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
