"""State for hosts: steps, checkpoints and shared spaces of a call in flight (`chimera_host.contract.state`).

What is kept belongs to the run of the call, its session and its agent, as the gateway knows them. A host names
none of these.
"""

import msgspec
from aiohttp import web

from chimera.entrypoints.gateway.http import decoded, json_response, read_body
from chimera.gateway.calls import InFlightCall
from chimera.gateway.errors import InvalidRequest, NotFound, PayloadTooLarge
from chimera.gateway.settings import HttpSettings
from chimera.gateway.state import rules
from chimera.gateway.state.errors import NoRun
from chimera.gateway.state.ports import CheckpointStore
from chimera.gateway.state.runs import OpenRun, Runs
from chimera.gateway.state.spaces import Spaces
from chimera.kernel.clock import Clock
from chimera_host.contract.state import (
    CHECKPOINT_ASKS,
    CHECKPOINT_ENCODER,
    HEADER_IDEMPOTENCY,
    CheckpointAsk,
    GetCheckpoint,
    ListCheckpoints,
    ListThreads,
    PutCheckpoint,
    PutWrites,
    Several,
    SharedBody,
    StepBody,
    StepSaved,
)

SHARED = "shared/"
MSGPACK = "application/msgpack"

_steps = msgspec.json.Decoder(StepBody)
_shared = msgspec.json.Decoder(SharedBody)


class InternalState:
    """Answers hosts about state."""

    def __init__(
        self,
        *,
        runs: Runs,
        checkpoints: CheckpointStore,
        spaces: Spaces,
        clock: Clock,
        settings: HttpSettings,
        step_bytes: int,
        body_bytes: int,
    ) -> None:
        """Put the parts together; a step, checkpoint or write may have `step_bytes`, a body `body_bytes`."""
        self._runs = runs
        self._checkpoints = checkpoints
        self._spaces = spaces
        self._clock = clock
        self._settings = settings
        self._step_bytes = step_bytes
        self._body_bytes = body_bytes

    async def answer(self, request: web.BaseRequest, path: str, call: InFlightCall) -> web.Response:
        """One request for what is at `path` below `/internal/v1/state/`."""
        match request.method, path:
            case "POST", "steps":
                return await self._save_step(request, call)
            case "GET", "steps":
                after = request.query.get("after", "0")
                if not (after.isdecimal() and len(after) < 10):
                    raise InvalidRequest(f"after is {after[:40]!r}", next_step="give a step's version")
                return json_response(await self._runs.steps(run_of(call), int(after)))
            case "POST", "checkpoints":
                return await self._checkpoint(request, call)
            case "POST", _ if path.startswith(SHARED):
                return await self._share(request, call, path.removeprefix(SHARED))
            case _:
                raise NotFound(f"the internal API has no {request.method[:20]} state/{path[:200]}")

    async def _save_step(self, request: web.BaseRequest, call: InFlightCall) -> web.Response:
        body: StepBody = decoded(_steps, await self._body(request))
        opened = run_of(call)
        if body.run is not None and body.run != opened.name:
            raise InvalidRequest(
                f"the call's run is {opened.name}, not {body.run[:64]!r}",
                next_step="leave `run` out, or name the call's",
            )
        return json_response(StepSaved(version=await self._runs.save_step(opened, body)))

    async def _checkpoint(self, request: web.BaseRequest, call: InFlightCall) -> web.Response:
        opened = run_of(call)
        try:
            ask = CHECKPOINT_ASKS.decode(await self._body(request))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidRequest(
                f"the body is no request for checkpoints: {error}", next_step="send MessagePack as the contract says"
            ) from error
        size = largest(ask)
        if size > self._step_bytes:
            raise PayloadTooLarge(
                f"the checkpoint has {size} bytes; it may have {self._step_bytes}",
                next_step="keep less in the graph's state, or raise state.step_bytes in the settings",
                agent=call.route.agent,
            )
        runs = self._runs
        if not isinstance(ask, GetCheckpoint | ListCheckpoints | ListThreads):
            runs.touched(opened, checkpoints=True)
        answer = await self._checkpoints.ask(
            opened.run, ask, limits=runs.limits, now=self._clock.wall(), life=runs.life
        )
        return web.Response(body=CHECKPOINT_ENCODER.encode(answer), content_type=MSGPACK)

    async def _share(self, request: web.BaseRequest, call: InFlightCall, space: str) -> web.Response:
        rules.check_session_id(space)
        body: SharedBody = decoded(_shared, await self._body(request))
        if body.write:
            call.effects += 1
        answer = await self._spaces.apply_as(
            call.route.tenant,
            call.route.agent,
            space,
            body,
            opened=call.opened,
            key=request.headers.get(HEADER_IDEMPOTENCY),
            hops=call.hops,
        )
        return json_response(answer)

    async def _body(self, request: web.BaseRequest) -> bytes:
        return await read_body(request, self._settings, self._body_bytes)


def largest(ask: CheckpointAsk) -> int:
    """The bytes of the largest checkpoint or write in a request."""
    match ask:
        case PutCheckpoint():
            return len(ask.value.data) + len(ask.metadata.data)
        case PutWrites():
            return max((len(write.value.data) for write in ask.writes), default=0)
        case Several():
            return max(largest(one) for one in ask.asks)
        case _:
            return 0


def run_of(call: InFlightCall) -> OpenRun:
    """The run that a call works on; raises `NoRun`."""
    if call.opened is None:
        raise NoRun(
            f"the call of agent {call.route.agent} has neither a session nor an Idempotency-Key",
            next_step="call it with one of them, or keep nothing",
            agent=call.route.agent,
        )
    return call.opened
