"""The model gateway: the one place through which agents reach models.

Which model a call may use, for whom it is metered and what is left of a budget are read from the route of the call in
flight, never from the request. A call is tried again where the failure may pass and the deadline leaves room; a stream
only until its first chunk. A provider that keeps failing is left alone for a while (`breaker`), and gets no more calls
at once than it takes; the rest wait in a bounded queue.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from chimera.gateway import breaker, retry
from chimera.gateway.calls import InFlightCall
from chimera.gateway.errors import (
    CircuitOpen,
    GatewayOverloaded,
    InvalidRequest,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
    PriceUnknown,
)
from chimera.gateway.metering import Meter, Price
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.ports import ModelProvider, ModelRequest
from chimera.gateway.quota.model import NOTHING, Amount
from chimera.gateway.quota.service import Quota
from chimera.gateway.quota.spending import Spending, Tokens, reserve
from chimera.gateway.settings import ModelGatewaySettings
from chimera.kernel.clock import Clock
from chimera_host.contract.problem import ProblemError
from chimera_host.trace import current_trace

Answer = dict[str, Any]


@dataclass(kw_only=True, slots=True)
class Model:
    """One model of the settings: its provider, price and limits."""

    name: str
    provider: ModelProvider
    price: Price
    timeout: float
    max_concurrency: int
    attempts: int
    state: breaker.BreakerState = field(default_factory=breaker.BreakerState)
    waiting: int = 0
    slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        """Make the slots."""
        self.slots = asyncio.Semaphore(self.max_concurrency)


class ModelGateway:
    """Model calls with budgets, metering, retries and a circuit breaker."""

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        quota: Quota,
        meter: Meter,
        metrics: GatewayMetrics,
        settings: ModelGatewaySettings,
        clock: Clock,
        answer_tokens: int,
        draw: random.Random | None = None,
    ) -> None:
        """Serve `models` by name; `answer_tokens` are reserved for an answer without a bound."""
        self._models = dict(models)
        self._quota = quota
        self._answer_tokens = answer_tokens
        self._meter = meter
        self._metrics = metrics
        self._settings = settings
        self._clock = clock
        self._draw = (draw or random.Random()).random
        self._rule = breaker.BreakerRule(failures=settings.breaker_failures, open_for=settings.breaker_open)

    async def complete(self, call: InFlightCall, body: dict[str, Any], left: float) -> Answer:
        """A whole chat completion for `call`, within `left` seconds."""
        if (script := call.root.script) is not None:
            return script.complete()
        model, request, until = self._prepare(call, body, left)
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self._spending(model, call, body) as spending, self._attempt(model, until, spending):
                    answer = await model.provider.complete(self._timed(request, until))
                    spending.heard(answer)
                    return answer
            except ModelUnavailable as error:
                await self._again(model, attempt, until, error)

    async def stream(self, call: InFlightCall, body: dict[str, Any], left: float) -> AsyncGenerator[Answer, None]:
        """A chat completion as chunks. Closing it early cancels the call; what it used until then is metered."""
        if (script := call.root.script) is not None:
            async with aclosing(script.stream()) as said:
                async for chunk in said:
                    yield chunk
            return
        model, request, until = self._prepare(call, body, left)
        attempt = 0
        began = False
        while True:
            attempt += 1
            try:
                async with (
                    self._spending(model, call, body) as spending,
                    self._attempt(model, until, spending),
                    aclosing(_generator(model.provider.stream(self._timed(request, until)))) as chunks,
                ):
                    async for chunk in chunks:
                        began = True
                        spending.heard(chunk)
                        yield chunk
                return
            except ModelUnavailable as error:
                if began:
                    raise
                await self._again(model, attempt, until, error)

    async def aclose(self) -> None:
        """Close all providers."""
        for provider in {id(model.provider): model.provider for model in self._models.values()}.values():
            await provider.aclose()

    # -- before ---------------------------------------------------------------------------------------------------

    def _prepare(self, call: InFlightCall, body: dict[str, Any], left: float) -> tuple[Model, ModelRequest, float]:
        route = call.route
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise InvalidRequest("a model call needs `messages`", next_step="send at least one message")
        model = self._models.get(route.model)
        if model is None:
            raise ModelRejected(
                f"agent {route.agent} uses model {route.model!r}, which the settings don't name",
                next_step=f"add it to `models` of the settings, or use one of {', '.join(sorted(self._models))}",
                agent=route.agent,
            )
        if route.max_usd_per_day is not None and not model.price.known:
            raise PriceUnknown(
                f"agent {route.agent} has a budget in US dollars, and model {model.name} has no price",
                next_step=f"set both prices of model.{model.name} in the settings, or give the agent tokens_per_day",
                agent=route.agent,
            )
        trace = current_trace.get() or call.trace  # the host's span of this model call, which logs it
        now = self._clock.monotonic()
        seconds = min(left, model.timeout)
        request = ModelRequest(
            body={name: value for name, value in body.items() if name not in ("model", "stream", "stream_options")},
            model=model.name,
            tenant=route.tenant,
            agent=route.agent,
            deadline=seconds,
            traceparent=trace.header(),
        )
        return model, request, now + seconds

    def _timed(self, request: ModelRequest, until: float) -> ModelRequest:
        return ModelRequest(
            body=request.body,
            model=request.model,
            tenant=request.tenant,
            agent=request.agent,
            deadline=max(0.001, until - self._clock.monotonic()),
            traceparent=request.traceparent,
        )

    # -- one attempt ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _spending(self, model: Model, call: InFlightCall, body: dict[str, Any]) -> AsyncIterator[Spending]:
        """Hold what an attempt may use of the agent's budget; afterwards settle and meter what it used."""
        route = call.route
        limited = route.max_tokens_per_day is not None or route.max_usd_per_day is not None
        held = reserve(body, answer_tokens=self._answer_tokens) if limited else Tokens()
        spending = Spending(body)
        async with self._quota.reserved(route, _amount(model, held)) as reservation:
            try:
                yield spending
            finally:
                used = spending.used(held)
                reservation.spend(NOTHING if used is None else _amount(model, used))
                if used is not None:
                    self._metered(model, call, used)

    @asynccontextmanager
    async def _attempt(self, model: Model, until: float, spending: Spending) -> AsyncIterator[None]:
        """A slot of the provider and the breaker's leave; notes how the attempt ended."""
        outcome = "cancelled"
        verdict: breaker.Outcome = "neither"
        await self._slot(model, until)
        began = time.perf_counter()
        given = until - self._clock.monotonic()
        try:
            admitted = breaker.admit(self._rule, model.state, self._clock.monotonic())
            model.state = admitted.state
            if not admitted.allowed:
                outcome = "circuit-open"
                raise CircuitOpen(
                    f"model {model.name} failed {self._rule.failures} times in a row and is left alone for a while",
                    next_step="see the gateway's log for the provider's errors",
                    retry_after=round(admitted.retry_after, 3),
                )
            try:
                async with asyncio.timeout(max(0.0, until - self._clock.monotonic())):
                    spending.sent = True
                    yield
                outcome, verdict = "ok", "ok"
            except (TimeoutError, ModelTimeout):  # ours, or the provider's, which counts the same seconds
                # A caller in a hurry says nothing of the provider's health.
                patient = given >= min(model.timeout, self._settings.breaker_patience)
                outcome, verdict = "timeout", "failed" if patient else "neither"
                raise ModelTimeout(
                    f"model {model.name} did not answer in time", next_step="give the call or the model more time"
                ) from None
            except ModelUnavailable as error:
                outcome, verdict, spending.refused = error.code, "failed", True
                raise
            except ModelRejected as error:
                outcome, verdict, spending.refused = error.code, "ok", True  # it answers
                raise
            finally:
                now = self._clock.monotonic()
                model.state = breaker.record(self._rule, model.state, verdict, now, probe=admitted.probe)
        finally:
            model.slots.release()
            self._metrics.model_calls.labels(model.name, outcome).inc()
            self._metrics.model_seconds.labels(model.name).observe(time.perf_counter() - began)

    async def _slot(self, model: Model, until: float) -> None:
        if not model.slots.locked():
            await model.slots.acquire()
            return
        if model.waiting >= self._settings.queue:
            raise GatewayOverloaded(
                f"{model.waiting} calls wait for model {model.name}, as many as may",
                next_step="try again later, or raise `max_concurrency` of the model",
                retry_after=2,
            )
        model.waiting += 1
        try:
            async with asyncio.timeout(max(0.0, until - self._clock.monotonic())):
                await model.slots.acquire()
        except TimeoutError:
            raise ModelUnavailable(
                f"model {model.name} had no free place in time",
                next_step="try again later, or raise `max_concurrency` of the model",
                retry_after=2,
            ) from None
        finally:
            model.waiting -= 1

    async def _again(self, model: Model, attempt: int, until: float, error: ProblemError) -> None:
        """Wait before the next attempt, or raise `error`."""
        rule = retry.RetryRule(attempts=model.attempts, backoff=self._settings.backoff, cap=self._settings.backoff_cap)
        wait = retry.next_wait(
            rule,
            attempt=attempt,
            left=until - self._clock.monotonic(),
            retry_after=error.retry_after,
            draw=self._draw(),
        )
        if wait is None or isinstance(error, CircuitOpen):
            raise error
        self._metrics.model_retries.labels(model.name).inc()
        await asyncio.sleep(wait)

    # -- after ----------------------------------------------------------------------------------------------------

    def _metered(self, model: Model, call: InFlightCall, used: Tokens) -> None:
        route, usd = call.route, model.price.of(used.prompt, used.completion)
        self._meter.add(route.tenant, route.agent, model.name, used.prompt, used.completion, usd)
        call.metered(used.prompt, used.completion)
        self._metrics.tokens.labels(model.name, "prompt").inc(used.prompt)
        self._metrics.tokens.labels(model.name, "completion").inc(used.completion)


def _amount(model: Model, tokens: Tokens) -> Amount:
    nano = model.price.nano(tokens.prompt, tokens.completion)
    return Amount(tokens=tokens.prompt + tokens.completion, nano_usd=nano or 0)


async def _generator(chunks: AsyncIterator[Answer]) -> AsyncGenerator[Answer, None]:
    """`chunks` as a generator that can be closed, which closes `chunks` where it can be."""
    try:
        async for chunk in chunks:
            yield chunk
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()
