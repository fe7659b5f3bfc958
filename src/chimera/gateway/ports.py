"""What the gateway needs from outside: routes, revisions, hosts, models, the audit log."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from chimera.immune.audit.model import AuditRecord
from chimera.platform.model import CellSpec, Endpoint, Route


class NewAgents(Struct, frozen=True, kw_only=True):
    """What has changed of agents that are not live and have a green side, and at which `sequence` of the catalogue.

    The route of each is its green side's; of one that is no such agent any more the status is `deleted`, and
    `withdrawn` says whether it was taken back. One that has become live is a changed route.
    """

    sequence: int
    changed: tuple[Route, ...] = ()


class RouteSource(Protocol):
    """Where routes come from: the catalogue's database, read by sequence, so that a restart needs nobody else."""

    async def changed_routes(self, after: int, limit: int) -> Sequence[Route]:
        """Routes whose sequence is above `after`, in order of sequence, at most `limit`; deleted ones included."""

    async def new_agents(self, seen: int, known: Mapping[tuple[str, str], Route]) -> NewAgents:
        """What is otherwise than `known` by tenant and name; nothing where the catalogue is at sequence `seen` still.

        A new agent has no row that could have a sequence of its own, so all that there are are looked through each time
        that anything has changed, and only those that aren't known are read. Whoever asks for `changed_routes` after
        this misses none that becomes live meanwhile.
        """

    async def cell(self, cell: str) -> CellSpec | None:
        """One cell as desired."""


class RevisionSource(Protocol):
    """Immutable content by digest."""

    async def document(self, digest: str) -> bytes | None:
        """A revision's `AgentDocument` as canonical JSON."""

    async def bundle(self, digest: str) -> bytes | None:
        """A source bundle (tar.gz)."""


class Usage(Struct, frozen=True, kw_only=True):
    """What one model call cost an agent. `usd` is None where the model has no price in the settings."""

    tenant: str
    agent: str
    model: str
    day: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None


class Audit(Protocol):
    """The audit log, to which the gateway appends decisions and what came of them."""

    async def record(self, records: Sequence[AuditRecord]) -> None:
        """Append entries in one transaction; they are durable when it returns."""


class HostPool(Protocol):
    """The substrate as the gateway sees it: running hosts, and a way to wake a cell."""

    def endpoints(self, cell: str) -> Sequence[Endpoint]:
        """Hosts of `cell` that take calls, from the newest report; no I/O."""

    async def wake(self, cell: CellSpec, within: float) -> Sequence[Endpoint]:
        """Have at least one host of `cell` in `within` seconds; raises `CellUnavailable` with the reason."""

    async def report(self, host: str, *, kind: str, agent: str, call: str) -> None:
        """Tell the substrate that `host` failed a call of `agent` (`unreachable`, `timeout`, `crashed`).

        One that broke it (`BROKEN`) is no endpoint from this moment on, until somebody has looked at it.
        """

    def observe(self, cell: str, in_flight: int) -> None:
        """The number of calls of `cell` being held or run now; sampled for autoscaling."""


class HostIdentity(Struct, frozen=True, kw_only=True):
    """Who a host is, as its platform vouches for: its name, its cell, and what tells it from one of the same name."""

    host: str
    cell: str
    unique: str


class HostIdentities(Protocol):
    """Who vouches for hosts that come with a token of their platform instead of the gateway's own."""

    async def identify(self, token: str) -> HostIdentity:
        """Whose token this is; raises `Unauthenticated` where it isn't a host's, `NodeUnavailable` if nobody knows."""


class FunctionRequest(Struct, frozen=True, kw_only=True):
    """A request to an agent's function. `timeout` is for all of it, in seconds; `most` bounds the answer, in bytes."""

    url: str
    headers: dict[str, str]
    body: bytes
    timeout: float
    most: int


class FunctionResponse(Struct, frozen=True, kw_only=True):
    """What a function answered, whatever it was. `retry_after` in seconds."""

    status: int
    content_type: str
    body: bytes
    retry_after: float | None = None


class FunctionCaller(Protocol):
    """The way to functions, which guards addresses.

    Raises `FunctionRefused` for an address that may not be called, `FunctionUnavailable`, `FunctionTimeout`, and
    `FunctionFailed` where the answer is larger than allowed.
    """

    async def post(self, request: FunctionRequest) -> FunctionResponse:
        """One request; nothing is tried again."""

    async def aclose(self) -> None:
        """Close connections."""


class ModelRequest(Struct, frozen=True, kw_only=True):
    """A model call on its way to a provider: an OpenAI chat-completions body without `model` and `stream`.

    `tenant` and `agent` say for whom; `deadline` is the seconds left.
    """

    body: dict[str, Any]
    model: str
    tenant: str
    agent: str
    deadline: float
    traceparent: str | None = None


class ModelProvider(Protocol):
    """One place that answers chat completions. Raises `ModelUnavailable` (may pass) or `ModelRejected` (won't)."""

    async def complete(self, request: ModelRequest) -> dict[str, Any]:
        """A whole OpenAI chat-completions answer, with `usage`."""

    def stream(self, request: ModelRequest) -> AsyncIterator[dict[str, Any]]:
        """OpenAI chat-completions chunks; the last one carries `usage`."""

    async def aclose(self) -> None:
        """Close connections."""
