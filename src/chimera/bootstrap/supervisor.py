"""One machine: `python -m chimera.bootstrap.supervisor --home DIR` starts everything and watches over it.

The supervisor is the node agent: it runs the substrate of local processes and its autoscaler, starts the control
plane, the gateway and the local model, and starts them again when they end. It holds no agent and no call, so that
each of the others can be killed at any moment. When it ends, however it ends, all others end with it: each holds the
read end of a pipe whose write end is here.
"""

import gc

if __name__ == "__main__":
    # Nothing of what is imported is garbage, and looking for some takes a third of the start.
    gc.disable()

import argparse
import asyncio
import dataclasses
import logging
import os
import signal
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvloop
from aiohttp import web

from chimera.adapters.runtimes import Runtimes
from chimera.adapters.signing.ed25519 import read_key
from chimera.adapters.storage.backup.archive import Manifest, signed
from chimera.adapters.storage.backup.creating import create_backup
from chimera.adapters.storage.backup.upgrading import bring_up, is_there, new_backup
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.naming import database_name, open_of_settings, password_reference, read_password
from chimera.adapters.substrates.local import limits, logfiles, procfs
from chimera.adapters.substrates.local.children import Child, ChildSpec
from chimera.adapters.substrates.local.launcher import LauncherOptions, LocalLauncher
from chimera.bootstrap import settings as machine
from chimera.bootstrap.audit_parts import ensure_key, places
from chimera.bootstrap.control_plane import ControlPlaneConfig
from chimera.bootstrap.database import when_there
from chimera.bootstrap.gateway_config import GatewayConfig, ModelConfig, load_settings
from chimera.bootstrap.lifeline import end_with
from chimera.bootstrap.startup import free_port, listen_unix, listener, ready, ready_pipe, secret_of
from chimera.entrypoints.node.app import NodeApp
from chimera.entrypoints.node.report import NodeReport
from chimera.gateway.tokens import mint
from chimera.kernel.clock import SystemClock
from chimera.kernel.places import BESIDE, hold, runtime_overrides, runtimes_folder
from chimera.kernel.settings import FILE_NAME, SettingsError, of_file
from chimera.platform.errors import HostStartFailed, RuntimeMissing
from chimera.platform.node import NodeAgent
from chimera_host.contract.agent import FrameworkName
from chimera_host.contract.problem import ProblemError
from chimera_host.logs import configure

# Run as a program, `__name__` would be `__main__`, whose lines the log configuration passes over.
log = logging.getLogger("chimera.bootstrap.supervisor")

STOP_GRACE, STOP_MARGIN = 25.0, 5.0
"""How long a process may take to end; of a gateway, beside what its calls may take."""
LOG_INTERVAL = 10.0
PRUNE_FIRST, PRUNE_PAUSE = 600.0, 86_400.0
WARMED: tuple[FrameworkName, ...] = ("autogen", "langgraph", "crewai")
SOCKET_PATH_LIMIT = 90
LOCAL_MODEL = "smollm2-135m-instruct"


class AlreadyRunning(ProblemError):
    """Another supervisor runs in this home."""

    code = "already-running"
    status = 409
    title = "Chimera runs here already"


class Supervisor:
    """All processes of one home."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Prepare folders, keys and settings; raises `SettingsError` or `AlreadyRunning`."""
        self.home: Path = options.home.absolute()
        self._options = options
        for folder in ("logs", "work", "secrets", "run/hosts"):
            (self.home / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = self._only_one()
        self._public = listener(options.host, options.port)
        self.settings = machine.load(self.home)
        self._database = database_name(self.settings.node, self.home)
        self._database_password = password_reference(self.settings.node, self.home)
        read_password(self._database_password, os.environ)
        self.runtimes = Runtimes(runtimes_folder(os.environ), runtime_overrides(os.environ))
        self._run = self._run_folder()
        self._children: list[Child] = []
        self._kept: Path | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self._internal = listener("127.0.0.1", 0)
        self._model_port = free_port()
        secret = secret_of(self.home / "token.secret")
        # Checked here, where a person sees it at once, and not only in the process that uses them.
        bounds = load_settings(self._gateway_config({}, -1))
        self._audit = bounds.audit
        self._gateways_grace = bounds.http.drain_pause + bounds.http.drain + STOP_MARGIN
        life = bounds.identity.token_life
        self.launcher = LocalLauncher(
            LauncherOptions(
                home=self.home,
                platform_url=f"http://127.0.0.1:{self._internal.getsockname()[1]}",
                mint=lambda host, cell: mint(secret, host=host, cell=cell, expires=time.time() + life),
                requirements=self._requirements,
                request_timeout=bounds.deadlines.host,
                stream_idle=bounds.http.stream_idle,
                concurrency=bounds.admission.host_concurrency,
                fork=not options.no_fork and sys.platform.startswith("linux"),
                node_program=self.settings.node.node_program,
            ),
            self.runtimes,
            limits.NONE if options.no_limits else limits.detect(),
        )
        self.agent = NodeAgent(self.launcher, SystemClock(), self.settings.node)

    async def bring_up(self) -> None:
        """Bring the database of an older release up to this one's schema, after a backup, before anything uses it.

        Raises `NewerDatabase` and its like for a database that this release may not work on, and whatever keeps the
        backup from being made.
        """
        if not is_there(self._database):
            return
        database = open_of_settings(self.settings.node, self.home, os.environ)
        backup = self._back_up if self.settings.node.backup_before_upgrade else None
        try:
            done = await when_there(lambda: bring_up(database, backup))
        finally:
            await asyncio.to_thread(database.close)
        if done is not None:
            kept = "none, as node.backup_before_upgrade says" if self._kept is None else str(self._kept)
            log.warning("the database was upgraded", extra={"schema": done[0], "backup": kept})
            sys.stderr.write(f"The database had the schema {done[0]} and was upgraded; backup: {kept}\n")

    async def _back_up(self, database: Database) -> Manifest:
        key = places(self.home, self._audit).key
        signer = read_key(key) if key is not None and key.exists() else None
        self._kept = await asyncio.to_thread(new_backup, self.home, "before-upgrade")
        return await create_backup(
            database,
            self._kept,
            release=version("chimera-ecosystem"),
            files={name: self.home / name for name in BESIDE},
            sign=lambda manifest: signed(manifest, signer),
        )

    async def start(self) -> dict[str, Any]:
        """Start everything; where it listens."""
        await self.bring_up()
        secret_of(self.home / "chimera.key")
        audit = ensure_key(self.home, self._audit)
        report = NodeReport(self.agent, SystemClock(), self.home / "logs", self.processes, procfs.proportional_bytes)
        # Kept: the loop holds no reference to a server, and a collected one closes its socket.
        self._runner = web.AppRunner(NodeApp(self.agent, report).make(), access_log=None, shutdown_timeout=2.0)
        await self._runner.setup()
        await listen_unix(self._runner, self.socket)
        self._task(self.agent.run(), "node-agent")
        self._task(self._bound_logs(), "logs")
        models = self._models()
        with ready_pipe() as (changes, tell_changes), ready_pipe() as (calls, tell_calls):
            config = self._control_plane_config(tell_changes)
            control_plane = self._start_child("control-plane", config, (tell_changes,))
            descriptors = (tell_calls, self._public.fileno(), self._internal.fileno())
            gateway = self._start_child("gateway", self._gateway_config(models, tell_calls), descriptors)
            listening = await ready(gateway, calls)
            try:
                await ready(control_plane, changes)
            except ProblemError as error:  # it is started again and again; agents are called meanwhile
                what = f"agents can be called, but no change can be made: {error.detail}"
                log.error(what, extra={"next_step": error.next_step})
                sys.stderr.write(f"Warning: {what}; {error.next_step}\n")
        where = {
            **msgspec.json.decode(listening),
            "pid": os.getpid(),
            "release": version("chimera-ecosystem"),
            "home": str(self.home),
            "models": models_shown(models),
            "audit_keys": str(audit.public_keys),
        }
        (self.home / "run" / "endpoint.json").write_bytes(msgspec.json.encode(where))
        if idle := self.settings.retention.environments_days * 86_400:
            self._task(self._prune_runtimes(idle), "prune-runtimes")
        if self.settings.node.warm_parents:
            self._task(self._warm_parents(), "warm-parents")
        return where

    async def _requirements(self, digest: str) -> bytes:
        connector = aiohttp.UnixConnector(str(self._run / "control-plane.sock"))
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:
            try:
                async with session.get(f"http://control-plane/v1/requirements/{digest}") as answer:
                    answer.raise_for_status()
                    return await answer.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                raise HostStartFailed(
                    f"the requirements {digest[:19]} of the cell can't be had: {error}",
                    next_step="try again when the control plane is there (`chimera status`)",
                    retry_after=5,
                ) from error

    async def _bound_logs(self) -> None:
        while True:
            try:
                await asyncio.to_thread(logfiles.bound, self.home / "logs", self.settings.node.log_bytes)
            except OSError as error:
                log.error("a log file could not be moved aside", extra={"error": str(error)})
            await asyncio.sleep(LOG_INTERVAL)

    async def _prune_runtimes(self, idle: float) -> None:
        """Remove environments that nobody used for long, once a day; one in use, here or by another home, stays."""
        pause = PRUNE_FIRST
        while True:
            await asyncio.sleep(pause)
            pause = PRUNE_PAUSE
            try:
                pruned = await asyncio.to_thread(self.runtimes.prune, idle)
            except OSError as error:
                log.warning("environments could not be pruned", extra={"error": str(error)})
                continue
            for one in pruned:
                log.info("an unused environment was removed", extra={"path": str(one.path), "bytes": one.size})

    async def _warm_parents(self) -> None:
        """Start the zygotes one after another, behind everything that somebody waits for; imports take seconds."""
        for framework in WARMED:
            try:
                await self.launcher.warm(framework)
            except (HostStartFailed, OSError) as error:
                log.warning("a warm parent did not start", extra={"framework": framework, "error": str(error)})

    async def stop(self) -> None:
        """End everything: callers first, hosts next, the rest last."""
        (self.home / "run" / "endpoint.json").unlink(missing_ok=True)
        gateways = [child for child in self._children if child.spec.name == "gateway"]
        await asyncio.gather(*(child.stop(self._gateways_grace) for child in gateways))
        await self.agent.close()
        await asyncio.gather(*(child.stop(STOP_GRACE) for child in self._children))
        if self._runner is not None:
            await self._runner.cleanup()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def socket(self) -> Path:
        """Where the node agent listens."""
        return self._run / "node.sock"

    def processes(self) -> dict[str, int]:
        """Process ids by name: the platform's own, zygotes and hosts."""
        found = {"supervisor": os.getpid(), **self.launcher.processes()}
        for child in self._children:
            if child.process is not None and child.process.returncode is None:
                found[child.spec.name] = child.process.pid
        return found

    # -- configurations --------------------------------------------------------------------------------------------

    def _control_plane_config(self, ready_fd: int) -> ControlPlaneConfig:
        file = self.home / FILE_NAME
        return ControlPlaneConfig(
            ready_fd=ready_fd,
            database=self._database,
            database_password=self._database_password,
            socket=str(self._run / "control-plane.sock"),
            node_socket=str(self.socket),
            home=str(self.home),
            settings=self.settings.gateway,
            audit=self.settings.gateway.get("audit", {}),
            events=self.settings.gateway.get("events", {}),
            retention=dataclasses.asdict(self.settings.retention),
            upkeep=dataclasses.asdict(self.settings.upkeep),
            jaegis=self.settings.jaegis,
            models={"default": {}, **{name: _told(one) for name, one in self.settings.models.items()}},
            delivery=dataclasses.asdict(self.settings.delivery),
            sync=dataclasses.asdict(self.settings.sync),
            scanning=dataclasses.asdict(self.settings.scanning.below(self.home, of_file(file, os.environ, "scanning"))),
            trials=dataclasses.asdict(self.settings.trials),
        )

    def _gateway_config(self, models: dict[str, ModelConfig], ready_fd: int) -> GatewayConfig:
        options = self._options
        return GatewayConfig(
            home=str(self.home),
            key_file=str(self.home / "chimera.key"),
            token_secret_file=str(self.home / "token.secret"),
            database=self._database,
            database_password=self._database_password,
            control_plane_socket=str(self._run / "control-plane.sock"),
            node_socket=str(self.socket),
            host=options.host,
            port=options.port,
            hosts=tuple(options.allow_host),
            tls_certificate=options.tls_certificate,
            tls_key=options.tls_key,
            behind_proxy=options.behind_proxy,
            public_fd=self._public.fileno(),
            internal_fd=self._internal.fileno(),
            models=models,
            issuers=self.settings.issuers,
            settings=self.settings.gateway,
            ready_fd=ready_fd,
        )

    def _models(self) -> dict[str, ModelConfig]:
        models = dict(self.settings.models)
        choice = self._options.model
        if choice == "scripted":
            models["default"] = ModelConfig(provider="scripted", script=self._options.script, max_concurrency=1000)
        elif choice == "local" or "default" not in models:
            models["default"] = self._local_model()
        return models

    def _local_model(self) -> ModelConfig:
        python = self.runtimes.python("local-model")
        key = secret_of(self.home / "model.key").decode()
        script = self.runtimes.local_model_script()
        log_file = self.home / "logs" / "local-model.jsonl"
        spec = ChildSpec(
            name="local-model",
            arguments=lambda lifeline: (
                str(python),
                *(str(script), "--port", str(self._model_port), "--key-file", str(self.home / "model.key")),
                f"--lifeline-fd={lifeline}",
            ),
            log=log_file,
        )
        self._keep(Child(spec))
        os.environ["CHIMERA_LOCAL_MODEL_KEY"] = key
        return ModelConfig(
            provider="local",
            base_url=f"http://127.0.0.1:{self._model_port}/v1",
            api_key="env:CHIMERA_LOCAL_MODEL_KEY",
            model=LOCAL_MODEL,
            max_concurrency=4,
        )

    # -- processes -------------------------------------------------------------------------------------------------

    def _start_child(self, name: str, config: Any, descriptors: tuple[int, ...] = ()) -> Child:
        file = self.home / "run" / f"{name}.json"
        with open(file, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as target:
            target.write(msgspec.json.encode(config))
        module = f"chimera.bootstrap.{name.replace('-', '_')}"
        spec = ChildSpec(
            name=name,
            arguments=lambda lifeline: (
                *(sys.executable, "-m", module, "--config", str(file)),
                f"--lifeline-fd={lifeline}",
            ),
            log=self.home / "logs" / f"{name}.jsonl",
            descriptors=descriptors,
        )
        return self._keep(Child(spec))

    def _keep(self, child: Child) -> Child:
        self._children.append(child)
        self._task(child.run(), f"child-{child.spec.name}")
        return child

    def _task(self, coroutine: Any, name: str) -> None:
        self._tasks.append(asyncio.create_task(coroutine, name=name))

    def _only_one(self) -> int:
        try:
            return hold(self.home)
        except BlockingIOError:
            raise AlreadyRunning(
                f"Chimera runs already in {self.home}",
                next_step="use it (`chimera status`), stop it, or give another --home",
            ) from None

    def _run_folder(self) -> Path:
        # A Unix socket's path holds about 100 bytes; a deep home gets a short folder elsewhere, open to this user only.
        run = self.home / "run"
        if len(str(run)) <= SOCKET_PATH_LIMIT:
            return run
        return Path(tempfile.mkdtemp(prefix="chimera-"))


def models_shown(models: dict[str, ModelConfig]) -> dict[str, str]:
    """Models by name with what answers them."""
    return {name: f"{model.provider} {model.model or ''}".strip() for name, model in models.items()}


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    supervisor = Supervisor(options)
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    try:
        starting = asyncio.create_task(supervisor.start(), name="start")
        stopping = asyncio.create_task(told_to_stop.wait(), name="stop")
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            where = await starting
            log.info("chimera is up", extra={"public": where["public"]})
            if options.ready_fd is not None:
                os.write(options.ready_fd, msgspec.json.encode(where) + b"\n")
                os.close(options.ready_fd)
            await told_to_stop.wait()
    finally:
        await supervisor.stop()


def parser() -> argparse.ArgumentParser:
    """The command line of the supervisor; `chimera up` builds it."""
    made = argparse.ArgumentParser(prog="python -m chimera.bootstrap.supervisor", description=main.__doc__)
    made.add_argument("--home", type=Path, required=True)
    made.add_argument("--host", default="127.0.0.1")
    made.add_argument("--port", type=int, default=8080)
    made.add_argument("--allow-host", action="append", default=[])
    made.add_argument("--tls-certificate")
    made.add_argument("--tls-key")
    made.add_argument("--behind-proxy", action="store_true")
    made.add_argument("--model", choices=("settings", "local", "scripted"), default="settings")
    made.add_argument("--script")
    made.add_argument("--no-fork", action="store_true")
    made.add_argument("--no-limits", action="store_true")
    made.add_argument("--ready-fd", type=int)
    made.add_argument("--lifeline-fd", type=int)
    return made


def _told(model: ModelConfig) -> dict[str, str | None]:
    """What a bill of materials may say of a model."""
    return {"provider": model.provider, "model": model.model}


def main() -> int:
    """Start everything of one home and keep it running."""
    options = parser().parse_args()
    # Sessions and logs are this user's alone, also in a home that others may look into. Everything started inherits it.
    os.umask(0o077)
    options.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (options.home / "logs").mkdir(exist_ok=True, mode=0o700)
    log_file = os.open(options.home / "logs" / "supervisor.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    configure("supervisor", descriptor=log_file)
    if options.lifeline_fd is not None:
        end_with(options.lifeline_fd)
    try:
        uvloop.run(serve(options))
    except (ProblemError, SettingsError) as error:
        detail = error.detail if isinstance(error, ProblemError) else str(error)
        step = error.next_step if isinstance(error, ProblemError) else "correct the settings"
        log.error("chimera did not start", extra={"error": detail})
        sys.stderr.write(f"{detail}\n{f'Next: {step}' if step else ''}\n")
        return 69 if isinstance(error, RuntimeMissing) else 78
    return 0


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    sys.exit(main())
