"""The HTTPS server that the API server asks: bounds, time-outs, a certificate that changes; answers are `review`'s.

It listens once it has a certificate; a newer one is shown to connections that begin after it, without a restart. An
answer takes milliseconds and changes nothing, so whoever reaches the port can learn what is valid, and no more. What
one caller may use up is bounded: the body, the time it takes to send it, connections that say nothing, and how many
are answered at once.
"""

import asyncio
import logging
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge

from chimera.entrypoints.admission.review import Asked, Malformed, Review, Reviewed, read_review

log = logging.getLogger(__name__)

MAX_BODY = 4 * 1024**2
"""An object is at most 1.5 MiB in etcd, and a change brings two of them."""
INLINE = 64 * 1024
READ_TIMEOUT, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT = 5.0, 5.0, 60.0
AT_ONCE = 32


class AdmissionMetrics:
    """Answers by kind and outcome, and when the certificate ends."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = CollectorRegistry(auto_describe=True)
        self.answers = Counter(
            "chimera_admission_answers",
            "Answers to the API server, by kind and outcome (allowed, refused, malformed, busy).",
            ("kind", "outcome"),
            registry=self.registry,
        )
        self.ends = Gauge(
            "chimera_admission_certificate_ends_timestamp_seconds",
            "When the webhook's certificate ends, in seconds since the epoch.",
            registry=self.registry,
        )


class AdmissionServer:
    """Answers at `host` and `port`. `run` it; `show` it each certificate."""

    def __init__(self, review: Callable[[Asked], Reviewed], *, host: str, port: int) -> None:
        """Nothing is opened before `run` and the first certificate."""
        self._review = review
        self._host, self._port = host, port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._certified = asyncio.Event()
        self._free = asyncio.Semaphore(AT_ONCE)
        self.metrics = AdmissionMetrics()
        self.address: tuple[str, int] | None = None

    def show(self, certificate: str, key: str, ends: float) -> None:
        """Show `certificate` (PEM, with its key) from the next connection on."""
        # The library takes files alone.
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(certificate + key)
            file.flush()
            self._context.load_cert_chain(Path(file.name))
        self.metrics.ends.set(ends)
        self._certified.set()

    async def run(self) -> None:
        """Serve from the first certificate on, until cancelled."""
        await self._certified.wait()
        runner = web.AppRunner(self._app(), access_log=None, keepalive_timeout=IDLE_TIMEOUT, lingering_time=1.0)
        await runner.setup()
        assert runner.server is not None
        server = await asyncio.get_running_loop().create_server(
            runner.server,
            self._host,
            self._port,
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
            ssl_shutdown_timeout=1.0,
            backlog=128,
        )
        self.address = server.sockets[0].getsockname()[:2]
        log.info("the admission webhook listens", extra={"port": self.address[1]})
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            await runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/validate", self._validate)
        app.router.add_get("/readyz", self._ready)
        return app

    async def _ready(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _validate(self, request: web.Request) -> web.Response:
        if self._free.locked():
            return self._fault(503, "busy", "too many questions at once")
        async with self._free:
            try:
                async with asyncio.timeout(READ_TIMEOUT):
                    data = await request.read()
            except TimeoutError:
                return self._fault(408, "malformed", f"the body took longer than {READ_TIMEOUT:.0f} s")
            except web.HTTPRequestEntityTooLarge:
                return self._fault(413, "malformed", f"the body is longer than {MAX_BODY:,} bytes")
            try:
                # What is large would hold up the process's other work.
                whole = await asyncio.to_thread(self._answer, data) if len(data) > INLINE else self._answer(data)
            except Malformed as error:
                return self._fault(400, "malformed", str(error))
        return web.Response(body=whole, content_type="application/json")

    def _answer(self, data: bytes) -> bytes:
        asked = read_review(data)
        answer = self._review(asked)
        outcome = "allowed" if answer.allowed else "refused"
        self.metrics.answers.labels(asked.resource.resource, outcome).inc()
        return msgspec.json.encode(Review(response=answer))

    def _fault(self, status: int, outcome: str, message: str) -> web.Response:
        self.metrics.answers.labels("", outcome).inc()
        return web.json_response({"message": message}, status=status)
