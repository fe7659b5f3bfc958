"""`python -m chimera.bootstrap.install`: what `chimera install` and `chimera uninstall` run.

The choices come as options and from the settings of a home (`chimera.bootstrap.settings`): its groups become those of
the platform's processes in the cluster.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import ipaddress
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml

from chimera.adapters.storage.naming import database_name
from chimera.adapters.storage.opening import is_url
from chimera.adapters.substrates.knative.client import PATIENCE, Kubernetes
from chimera.adapters.substrates.knative.installation import Installation, manifests
from chimera.adapters.substrates.knative.installer import can_carry_events, can_monitor, install, wait
from chimera.adapters.substrates.knative.netpolicies import KOURIER, NAMESPACE
from chimera.adapters.substrates.knative.preflight import SIZE, NotFit, Seen, findings, look, quantity, told
from chimera.adapters.substrates.knative.uninstaller import uninstall
from chimera.bootstrap import settings as machine
from chimera.bootstrap.substrate_parts import cluster
from chimera.delivery.scanning.settings import ScanningSettings
from chimera.gateway.settings import HttpSettings
from chimera.kernel.ids import is_name
from chimera.kernel.settings import SettingsError, load_group
from chimera_host.contract.problem import ProblemError

EXIT_SETTINGS, EXIT_TEMPORARY, EXIT_FAILED = 78, 75, 1
DATABASE_PORT = 5432
SCANS_BESIDE = 1024**3
"""Room for what else a control plane has in the folder that its scans fetch images to."""
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


class _Plain(yaml.SafeDumper):
    """YAML without anchors: what is said twice is written twice."""

    def ignore_aliases(self, data: object) -> bool:
        """Always."""
        return True


def choices(options: argparse.Namespace) -> Installation:
    """What is chosen, checked; raises `SettingsError`."""
    found = machine.load(options.home)
    database = database_name(found.node, options.home)
    if options.action != "uninstall" and not is_url(database):
        raise SettingsError(["a cluster's processes share a PostgreSQL server: name it in the setting node.database"])
    if options.action != "uninstall":
        _check_sizes(options, found.scanning)
        if found.knative.namespace == options.namespace:
            raise SettingsError(
                [f"knative.namespace is {options.namespace}, where the platform itself is: cells need one of their own"]
            )
    knative = found.knative
    if options.warm_pool is not None:
        knative = dataclasses.replace(knative, warm_pool=options.warm_pool)
    return Installation(
        knative=knative,
        database=database,
        database_secret=options.database_secret or None,
        database_port=urlsplit(database).port or DATABASE_PORT,
        image=options.image,
        namespace=options.namespace,
        replicas=options.replicas,
        hosts=tuple(options.allow_host),
        models={name: msgspec.to_builtins(model) for name, model in found.models.items()},
        issuers={name: msgspec.to_builtins(issuer) for name, issuer in found.issuers.items()},
        settings=_settings(found.gateway),
        retention=dataclasses.asdict(found.retention),
        upkeep=dataclasses.asdict(found.upkeep),
        jaegis=found.jaegis,
        delivery=dataclasses.asdict(found.delivery),
        scanning=dataclasses.asdict(found.scanning),
        trials=dataclasses.asdict(found.trials),
        sync=dataclasses.asdict(found.sync),
        operator=dataclasses.asdict(found.operator),
        eventing=bool(options.eventing),
        monitors=bool(options.monitors),
        monitoring=options.monitoring,
        node_selector=dict(_label(one) for one in options.node_selector),
        tolerations=tuple(_toleration(one) for one in options.tolerate),
        priority_class=options.priority_class,
        strict_spread=options.strict_spread,
        egress=tuple(_egress(one) for one in options.egress),
        ingress_namespace=options.ingress_namespace,
        advisories_claim=options.advisories_claim,
        repositories_size=options.repositories_size,
        scans_size=options.scans_size,
        control_plane_memory=options.control_plane_memory,
    )


def _settings(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The gateway's groups; how long it may take to end is reckoned with, so those of `http` are numbers."""
    given = found.get("http", {})
    http = load_group(HttpSettings, given, where="http")
    return {**found, **({"http": {name: getattr(http, name) for name in given}} if given else {})}


def look_at(chosen: Installation) -> str:
    """The command that shows why an installation doesn't come to work."""
    return f"kubectl -n {chosen.namespace} describe pods{',brokers,triggers' if chosen.eventing else ''}"


def _check_sizes(options: argparse.Namespace, scanning: ScanningSettings) -> None:
    """Refuse what is no size, and a volume that images outgrow: the control plane would be evicted with it."""
    sizes = {"repositories-size": options.repositories_size, "scans-size": options.scans_size}
    sizes["control-plane-memory"] = options.control_plane_memory
    if wrong := [name for name, text in sizes.items() if not re.fullmatch(SIZE, text)]:
        raise SettingsError([f"--{name} {sizes[name]}: write a size, such as 20Gi or 512Mi" for name in wrong])
    least, room = scanning.at_once * scanning.image_bytes + SCANS_BESIDE, int(quantity(options.scans_size))
    if not scanning.registries or room >= least:
        return
    (field,) = [one for one in dataclasses.fields(scanning) if one.name == "image_bytes"]
    most = (room - SCANS_BESIDE) // scanning.at_once
    smaller = f", or set scanning.image_bytes to {most:,} or less" if most >= field.metadata["minimum"] else ""
    raise SettingsError(
        [
            f"--scans-size {options.scans_size}: scanning.at_once is {scanning.at_once}, and each scan may fetch an "
            f"image of scanning.image_bytes, {scanning.image_bytes:,} bytes: give --scans-size "
            f"{-(-least // 1024**3)}Gi or more{smaller}"
        ]
    )


def _label(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise SettingsError([f"--node-selector {text}: write LABEL=VALUE"])
    return name, value


def _toleration(text: str) -> dict[str, str]:
    """A toleration, as kubectl writes taints: `KEY=VALUE:EFFECT`, or `KEY:EFFECT` for any value."""
    named, separator, effect = text.rpartition(":")
    if not separator or not named or effect not in EFFECTS:
        raise SettingsError([f"--tolerate {text}: write KEY=VALUE:EFFECT, the effect one of {', '.join(EFFECTS)}"])
    key, separator, value = named.partition("=")
    found = {"key": key, "operator": "Equal", "value": value} if separator else {"key": key, "operator": "Exists"}
    return {**found, "effect": effect}


def _egress(text: str) -> dict[str, Any]:
    """What may be reached: `ADDRESSES:PORT`, `NAMESPACE:PORT`, or `*:PORT` for any address."""
    where, separator, port = text.rpartition(":")
    if not separator or not where or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise SettingsError([f"--egress {text}: write 203.0.113.0/24:PORT, NAMESPACE:PORT or *:PORT"])
    ports = [{"protocol": "TCP", "port": int(port)}]
    if where == "*":
        return {"ports": ports}
    if is_name(where):
        return {"to": [{"namespaceSelector": {"matchLabels": {NAMESPACE: where}}}], "ports": ports}
    try:
        block = str(ipaddress.ip_network(where.replace("[", "").replace("]", "")))
    except ValueError as error:
        raise SettingsError([f"--egress {text}: {error}"]) from None
    return {"to": [{"ipBlock": {"cidr": block}}], "ports": ports}


async def run(options: argparse.Namespace, chosen: Installation) -> int:
    """Do it; the exit code."""
    api = Kubernetes(cluster(options.kubeconfig, os.environ), patience=PATIENCE)
    done: list[str] = []
    say = _say if options.output == "table" else done.append
    try:
        if options.action == "uninstall":
            left = await uninstall(api, chosen, say, seconds=options.wait)
            _print(done, options.output)
            return _told(left, "is still being deleted")
        await _check(api, chosen, proceed=options.yes)
        chosen = await with_events(api, chosen, options.eventing)
        if options.monitors is None:
            chosen = msgspec.structs.replace(chosen, monitors=await can_monitor(api))
        await install(api, chosen, say)
        _print(done, options.output)
        left = await wait(api, chosen, options.wait) if options.wait else ()
        return _told(left, f"is not ready: see `{look_at(chosen)}`")
    finally:
        await api.aclose()


async def with_events(api: Kubernetes, chosen: Installation, wanted: bool | None) -> Installation:
    """The installation with a Broker where it is wanted, or where nothing is said and the cluster has Eventing.

    Raises `NotFit` where it is wanted and the cluster can't.
    """
    if wanted is False:
        return chosen
    can = await can_carry_events(api)
    if wanted and not can:
        raise NotFit(
            "the cluster knows no Brokers and Triggers (eventing.knative.dev/v1)",
            next_step="install Knative Eventing with its Broker, or give --no-eventing: events stay in gateways then",
        )
    return msgspec.structs.replace(chosen, eventing=can)


async def _check(api: Kubernetes, chosen: Installation, *, proceed: bool) -> None:
    """Say what warm pools cost, and what the cluster lacks; raises `NotFit` unless it is to go on all the same."""
    seen = await look(api)
    sys.stderr.write("".join(f"{line}\n" for line in told(chosen.knative, seen)))
    missing = findings(chosen.knative, seen)
    if missing and not proceed:
        raise NotFit("; ".join(one.what for one in missing), next_step="; ".join(one.next_step for one in missing))
    sys.stderr.write("".join(f"{one.what}; {one.next_step}\n" for one in missing))


def _print(what: Any, output: str) -> None:
    """`what` as JSON or YAML; a table's lines have been printed as they came."""
    if output == "json":
        _say(msgspec.json.format(msgspec.json.encode(what), indent=2).decode())
    elif output == "yaml":
        _say(yaml.safe_dump(what, sort_keys=False))


def _render(chosen: Installation, output: str) -> None:
    """What would be applied: whole, or as a list of names."""
    found = manifests(chosen)
    sys.stderr.write("".join(f"{line}\n" for line in told(chosen.knative, Seen())))
    if output == "json":
        _print(found, output)
    elif output == "yaml":
        _say(yaml.dump_all(found, Dumper=_Plain, sort_keys=False, width=120))
    else:
        for one in found:
            _say(f"{one['kind']} {one['metadata'].get('namespace', '')}/{one['metadata']['name']}".replace(" /", " "))


def _told(left: Sequence[str], what: str) -> int:
    for name in left:
        sys.stderr.write(f"{name} {what}\n")
    return EXIT_TEMPORARY if left else 0


def _say(what: str) -> None:
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


def parser() -> argparse.ArgumentParser:
    """The command line; `chimera install` builds it, and `chimera.bootstrap.reach` takes its defaults."""
    made = argparse.ArgumentParser(prog="python -m chimera.bootstrap.install", description=main.__doc__)
    made.add_argument("action", choices=("install", "uninstall", "render"))
    made.add_argument("--home", required=True, type=Path)
    made.add_argument("--namespace", default="chimera")
    made.add_argument("--image", default="chimera-platform:0.1.0")
    made.add_argument("--replicas", type=int, default=3)
    made.add_argument("--database-secret", default="chimera-database")
    made.add_argument("--allow-host", action="append", default=[])
    made.add_argument("--eventing", action=argparse.BooleanOptionalAction)
    made.add_argument("--monitors", action=argparse.BooleanOptionalAction)
    made.add_argument("--monitoring", default="monitoring")
    made.add_argument("--node-selector", action="append", default=[])
    made.add_argument("--tolerate", action="append", default=[])
    made.add_argument("--priority-class", default="")
    made.add_argument("--strict-spread", action=argparse.BooleanOptionalAction, default=False)
    made.add_argument("--egress", action="append", default=[])
    made.add_argument("--ingress-namespace", default=KOURIER)
    made.add_argument("--advisories-claim", default="")
    made.add_argument("--repositories-size", default="8Gi")
    made.add_argument("--scans-size", default="20Gi")
    made.add_argument("--control-plane-memory", default="6Gi")
    made.add_argument("--warm-pool", type=int)
    made.add_argument("--yes", action=argparse.BooleanOptionalAction, default=False)
    made.add_argument("--kubeconfig")
    made.add_argument("--output", choices=("table", "json", "yaml"), default="table")
    made.add_argument("--wait", type=float, default=300.0)
    return made


def main() -> int:
    """Install or uninstall; the exit code."""
    options = parser().parse_args()
    try:
        chosen = choices(options)
        if options.action == "render":
            # Whoever reads only the beginning closes the pipe.
            with contextlib.suppress(BrokenPipeError):
                _render(chosen, options.output)
            return 0
        return asyncio.run(run(options, chosen))
    except (SettingsError, ProblemError) as error:
        return said(error)


def said(error: SettingsError | ProblemError) -> int:
    """Say what is wrong on standard error; the exit code."""
    if isinstance(error, SettingsError):
        sys.stderr.write("".join(f"{problem}\n" for problem in error.problems))
        return EXIT_SETTINGS
    step = f"\n{error.next_step}" if error.next_step else ""
    sys.stderr.write(f"{error.title}: {error.detail}{step}\n")
    return EXIT_TEMPORARY if error.retry_after else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
