"""`python -m chimera.bootstrap.reach`: what `chimera up --substrate knative` runs.

It installs the platform where it isn't, waits until it works, and leaves in the home what the other commands need: the
gateway's address and the key. Without an address of its own, the gateway is reached by a port of this machine for as
long as this process runs, and what it left is taken away with it; the platform in the cluster goes on.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvloop

from chimera.adapters.substrates.knative.access import ClusterAccess
from chimera.adapters.substrates.knative.client import PATIENCE, Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterAway
from chimera.adapters.substrates.knative.forwarding import Forwarding, any_ready
from chimera.adapters.substrates.knative.installation import PUBLIC
from chimera.adapters.substrates.knative.installer import can_monitor, install, installed, read_key, wait, wait_for
from chimera.adapters.substrates.knative.labelling import selector
from chimera.adapters.substrates.knative.rights import GATEWAY
from chimera.bootstrap import install as installing
from chimera.bootstrap.startup import PortTaken
from chimera.bootstrap.substrate_parts import cluster
from chimera.kernel.places import hold
from chimera.kernel.settings import SettingsError
from chimera_host.contract.problem import ProblemError
from chimera_host.logs import configure

KEY_FILE = "run/cluster.key"
ENDPOINT = "run/endpoint.json"
ANSWERS = 30.0
LOOK_AGAIN = 0.5


class InUse(ProblemError):
    """Something runs in the home already."""

    code = "home-in-use"
    status = 409
    title = "Something runs in this home"


@dataclass
class _Course:
    """How far it got, for whom it is told to stop: whether it leads to the gateway, and else what is left."""

    up: bool = False
    left: str = "nothing was changed in the cluster"


async def serve(options: argparse.Namespace) -> int:
    """Lead to the platform until SIGTERM (`_lead`); told to stop before it does, end at once and say what is left."""
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    course = _Course()
    leading = asyncio.create_task(_lead(options, course), name="lead")
    stopping = asyncio.create_task(told_to_stop.wait(), name="stop")
    try:
        await asyncio.wait((leading, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (leading, stopping):
            task.cancel()
        await asyncio.gather(leading, stopping, return_exceptions=True)
    if not leading.cancelled():
        leading.result()
    elif not course.up:
        _say(f"Stopped before the platform is reached: {course.left}")
        return installing.EXIT_TEMPORARY
    return 0


async def _lead(options: argparse.Namespace, course: _Course) -> None:
    """Install, wait, leave the address; then lead to the gateway until cancelled, or end at once where it has one."""
    access = cluster(options.kubeconfig, os.environ)
    api = Kubernetes(access, patience=PATIENCE)
    try:
        made = await _bring_up(api, options, course)
        key = await read_key(api, options.namespace)
        async with _way(api, access, options) as url:
            await _answers(url, key, min(ANSWERS, options.wait))
            where: dict[str, Any] = {"public": url, "home": str(options.home), "release": version("chimera-ecosystem")}
            where |= {"cluster": access.server, "namespace": options.namespace, "installed": made}
            leave(options.home, where, key)
            course.up = True
            if options.ready_fd is not None:
                os.write(options.ready_fd, msgspec.json.encode(where) + b"\n")
                os.close(options.ready_fd)
            if options.address is None:
                try:
                    await asyncio.Event().wait()
                finally:
                    take_away(options.home)
    finally:
        await api.aclose()


async def _bring_up(api: Kubernetes, options: argparse.Namespace, course: _Course) -> bool:
    """Have the platform run in the cluster; whether it was put there now."""
    there = await installed(api, options.namespace)
    made = not there
    if made:
        arguments = ["install", "--home", str(options.home), "--namespace", options.namespace]
        arguments += [f"--image={options.image}", f"--replicas={options.replicas}"]
        chosen = installing.choices(
            installing.parser().parse_args([*arguments, f"--database-secret={options.database_secret}"])
        )
        chosen = msgspec.structs.replace(chosen, monitors=await can_monitor(api))
        chosen = await installing.with_events(api, chosen, None)
        in_namespace = f"--substrate knative --namespace {options.namespace}"
        taken_out = f"`chimera uninstall {in_namespace}` takes it out"
        course.left = f"a part of it is in the cluster; `chimera install {in_namespace}` completes it, {taken_out}"
        await install(api, chosen, lambda what: _say(f"  {what}"))
        course.left = f"it is in the cluster and goes on coming up; this command waits for it again, {taken_out}"
        left, shown = await wait(api, chosen, options.wait), installing.look_at(chosen)
    else:
        left = await wait_for(api, options.namespace, there, options.wait)
        shown = f"kubectl -n {options.namespace} describe pods"
    if left:
        raise ClusterAway(
            f"{', '.join(left)} in namespace {options.namespace} did not come to work within {options.wait:.0f} s",
            next_step=f"see `{shown}`, then run this again",
            retry_after=5,
        )
    return made


@asynccontextmanager
async def _way(api: Kubernetes, access: ClusterAccess, options: argparse.Namespace) -> AsyncIterator[str]:
    """The gateway's address from here, while it lasts."""
    if options.address is not None:
        yield options.address.rstrip("/")
        return
    labels = ",".join(f"{name}={value}" for name, value in selector(GATEWAY).items())
    forwarding = Forwarding(access, options.namespace, any_ready(api, options.namespace, labels), PUBLIC)
    try:
        await forwarding.listen(options.port)
    except OSError as error:
        raise PortTaken(
            f"port {options.port} can't be listened on: {error.strerror or error}",
            next_step="give another --port (0 takes a free one)",
        ) from None
    finally:
        if not forwarding.port:
            await forwarding.__aexit__()
    try:
        yield f"http://127.0.0.1:{forwarding.port}"
    finally:
        await forwarding.__aexit__()


async def _answers(url: str, key: str, seconds: float) -> None:
    """Return once the gateway answers at `url`, with this key; raises what is wrong after a while."""
    until = asyncio.get_running_loop().time() + seconds
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(timeout=timeout, headers={"Authorization": f"Bearer {key}"}) as session:
        while True:
            said = ""
            try:
                async with session.get(url + "/v1/status") as answer:
                    if answer.status == 200:
                        return
                    said = f"it answers {answer.status}: {(await answer.text())[:200]}"
            except (aiohttp.ClientError, OSError) as error:  # OSError covers the time-out
                said = str(error) or type(error).__name__
            if asyncio.get_running_loop().time() > until:
                raise ClusterAway(
                    f"the gateway does not answer at {url}: {said}",
                    next_step="see whether the address leads to the Service `chimera`, and whether `--allow-host` "
                    "of `chimera install` names its host",
                    retry_after=5,
                )
            await asyncio.sleep(LOOK_AGAIN)


def leave(home: Path, where: dict[str, Any], key: str) -> None:
    """Write down the address and the key for the other commands, for this user alone."""
    (home / "run").mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, data in ((KEY_FILE, key.encode()), (ENDPOINT, msgspec.json.encode({**where, "key_file": KEY_FILE}))):
        with open(home / name, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(data + b"\n")


def take_away(home: Path) -> None:
    """Remove what was left."""
    for name in (ENDPOINT, KEY_FILE):
        (home / name).unlink(missing_ok=True)


def _say(what: str) -> None:
    sys.stderr.write(what + "\n")


def parser() -> argparse.ArgumentParser:
    """The command line; `chimera up` builds it."""
    made = argparse.ArgumentParser(prog="python -m chimera.bootstrap.reach", description=main.__doc__)
    made.add_argument("--home", type=Path, required=True)
    made.add_argument("--namespace", default="chimera")
    made.add_argument("--kubeconfig")
    made.add_argument("--image", default="chimera-platform:0.1.0")
    made.add_argument("--replicas", type=int, default=3)
    made.add_argument("--database-secret", default="chimera-database")
    made.add_argument("--wait", type=float, default=300.0)
    made.add_argument("--address")
    made.add_argument("--port", type=int, default=8080)
    made.add_argument("--ready-fd", type=int)
    return made


def main() -> int:
    """Have the platform in a cluster, and a way to it."""
    options = parser().parse_args()
    os.umask(0o077)
    options.home = options.home.absolute()
    try:
        descriptor = hold(options.home)
    except BlockingIOError:
        return installing.said(
            InUse(f"Chimera runs already in {options.home}", next_step="stop it, or give another --home")
        )
    (options.home / "logs").mkdir(exist_ok=True, mode=0o700)
    log_file = os.open(options.home / "logs" / "reach.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    configure("reach", descriptor=log_file)
    try:
        return uvloop.run(serve(options))
    except (SettingsError, ProblemError) as error:
        return installing.said(error)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
