"""`python -m chimera_host serve`: one host. `python -m chimera_host zygote`: a warm parent that forks hosts.

serve                                             configuration from CHIMERA_* and $PORT (Knative)
serve --config-fd N --listen-fd N --lifeline-fd N  configuration as JSON from a descriptor (one machine without fork)
zygote --framework NAME --control-fd N             see chimera_host.zygote
check [-- COMMAND]                                 does a host keep the contract? see chimera_host.checking
"""

import argparse
import os
import signal
import socket
import sys
from types import FrameType
from typing import get_args

import msgspec

from chimera_host.config import HostConfig, from_environment
from chimera_host.contract.agent import FrameworkName
from chimera_host.contract.problem import ProblemError

_BAD_USAGE = 64


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "zygote":
            from chimera_host import zygote

            return zygote.main(options.framework, options.control_fd)
        if options.command == "check":
            return _check(options)
        return _serve(options.config_fd, options.listen_fd, options.lifeline_fd)
    except ProblemError as error:
        step = f" ({error.next_step})" if error.next_step else ""
        sys.stderr.write(f"chimera_host: {error.detail}{step}\n")
        return _BAD_USAGE


def _serve(config_fd: int | None, listen_fd: int | None, lifeline_fd: int | None) -> int:
    # The first process of a container loses a signal that it has no handler for, and frameworks take seconds to import.
    signal.signal(signal.SIGTERM, _end_at_once)
    from chimera_host import process

    config = _read(config_fd) if config_fd is not None else from_environment(os.environ)
    parent = os.getppid()
    if lifeline_fd is not None:
        process.die_with_parent(parent)
    adapter = process.preload(config.framework)
    if listen_fd is not None:
        listener = socket.socket(fileno=listen_fd)
    else:
        listener = socket.create_server(("", config.port), backlog=1024)
    return process.run(config, adapter, listener, lifeline_fd)


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    """End before anything is served; the event loop's own handler takes this one's place."""
    os._exit(0)


def _check(options: argparse.Namespace) -> int:
    import asyncio

    from chimera_host import checking

    async def check() -> int:
        if options.start:
            world = checking.started(options.start, options.framework)
        else:
            world = checking.running(options.url, options.key, options.token, options.framework)
        async with world as made:
            return await checking.run(made, options.output)

    if bool(options.start) == bool(options.url):
        raise ProblemError("nothing to check, or two things", next_step="give --url, or a command after --")
    return asyncio.run(check())


def _read(descriptor: int) -> HostConfig:
    with os.fdopen(descriptor, "rb") as file:
        data = file.read()
    try:
        return msgspec.json.decode(data, type=HostConfig)
    except msgspec.MsgspecError as error:
        raise ProblemError(
            f"the configuration on descriptor {descriptor} is not a HostConfig: {error}",
            next_step="run the same release of the node agent and of the host",
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chimera_host", description="The process that runs agents.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run one host")
    serve.add_argument("--config-fd", type=int, help="read the configuration (JSON) from this descriptor")
    serve.add_argument("--listen-fd", type=int, help="accept connections on this listening socket")
    serve.add_argument("--lifeline-fd", type=int, help="end when this pipe closes")
    zygote = commands.add_parser("zygote", help="import a framework and fork hosts on demand")
    zygote.add_argument("--framework", required=True, choices=get_args(FrameworkName))
    zygote.add_argument("--control-fd", type=int, required=True, help="the control socket")
    check = commands.add_parser("check", help="see whether a host keeps the contract")
    check.add_argument("--url", help="where a host runs")
    check.add_argument("--key", default="", help="what it wants to be shown (its CHIMERA_HOST_KEY)")
    check.add_argument("--token", default="", help="what it shows the platform (its CHIMERA_PLATFORM_TOKEN)")
    check.add_argument("--framework", default="function", choices=get_args(FrameworkName))
    check.add_argument("--output", default="table", choices=("table", "json"))
    check.add_argument("start", nargs="*", metavar="COMMAND", help="what starts a host, after --")
    return parser


if __name__ == "__main__":
    sys.exit(main())
