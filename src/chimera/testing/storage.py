"""The gateway's storage in memory: the shipped fake that passes the same conformance suite as the database."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from chimera.gateway.ports import NewAgents
from chimera.platform.model import CellSpec, ResourceClass, Route, RuntimeClass, Withdrawn
from chimera_host.contract.agent import AgentDocument
from chimera_host.testing.builders import digest, encode_document


class MemoryStorage:
    """A `RouteSource` and `RevisionSource`."""

    def __init__(self) -> None:
        """Start empty."""
        self.routes: dict[tuple[str, str], Route] = {}
        self.cells: dict[str, CellSpec] = {}
        self.documents: dict[str, bytes] = {}
        self.bundles: dict[str, bytes] = {}
        self.sequence = 0

    # -- filling it -------------------------------------------------------------------------------------------------

    def put_cell(self, cell: CellSpec) -> None:
        """Store a cell."""
        self.cells[cell.cell] = cell

    def put_route(self, route: Route) -> Route:
        """Store a route as the newest change."""
        self.sequence += 1
        before = self.routes.get((route.tenant, route.agent))
        stored = replace(route, sequence=self.sequence)
        if before is not None and before.withdrawn and route.side == "green" and not route.withdrawn:
            stored = replace(stored, withdrawn=before.withdrawn)
        self.routes[route.tenant, route.agent] = stored
        return stored

    def put_agent(self, document: AgentDocument, cell: str, **fields: object) -> Route:
        """Store an agent's document, its cell if that is unknown, and a live route to it."""
        data = encode_document(document)
        self.documents[digest(data)] = data
        if cell not in self.cells:
            self.put_cell(cell_spec(cell, document))
        made = {
            "tenant": document.tenant,
            "agent": document.name,
            "revision": digest(data),
            "cell": cell,
            "framework": document.framework,
            "sequence": 0,
            "concurrency": document.concurrency,
            "model": document.model.name,
            "description": document.description,
            **fields,
        }
        return self.put_route(msgspec.convert(made, Route))

    def remove_agent(self, tenant: str, agent: str) -> None:
        """Take an agent out of service."""
        self.put_route(replace(self.routes[tenant, agent], status="deleted"))

    def take_back(self, tenant: str, agent: str, *, cancel: bool = False) -> None:
        """Take back an agent that has a green side alone; with `cancel` its calls are ended."""
        route = self.routes[tenant, agent]
        back = (Withdrawn(revision=route.revision, cancelled=cancel), *route.withdrawn)
        self.put_route(replace(route, status="deleted", withdrawn=back))

    # -- RouteSource --------------------------------------------------------------------------------------------------

    async def changed_routes(self, after: int, limit: int) -> Sequence[Route]:
        """Routes changed after a sequence."""
        newer = [route for route in self.routes.values() if route.sequence > after and route.side == "live"]
        return sorted(newer, key=lambda route: route.sequence)[:limit]

    async def new_agents(self, seen: int, known: Mapping[tuple[str, str], Route]) -> NewAgents:
        """Agents with a green side alone that are otherwise than known: those whose own route is a green one."""
        if self.sequence == seen:
            return NewAgents(sequence=seen)
        there = {key: one for key, one in self.routes.items() if one.side == "green" and one.status == "live"}
        before = {key: (one.revision, one.rollout) for key, one in known.items()}
        changed = [one for key, one in there.items() if before.get(key) != (one.revision, one.rollout)]
        gone = [
            replace(one, status="deleted", withdrawn=self.routes[key].withdrawn)
            for key, one in known.items()
            if key not in there
        ]
        return NewAgents(sequence=self.sequence, changed=(*changed, *gone))

    async def cell(self, cell: str) -> CellSpec | None:
        """One cell."""
        return self.cells.get(cell)

    # -- RevisionSource -----------------------------------------------------------------------------------------------

    async def document(self, digest: str) -> bytes | None:
        """A revision's document."""
        return self.documents.get(digest)

    async def bundle(self, digest: str) -> bytes | None:
        """A source bundle."""
        return self.bundles.get(digest)


def cell_spec(cell: str, document: AgentDocument, **fields: object) -> CellSpec:
    """A cell that fits an agent."""
    resources = ResourceClass(
        name="test", cpu_millicores=1000, memory_bytes=max(document.resources.memory_bytes, 512 * 1024**2)
    )
    kind = RuntimeClass(
        tenant=document.tenant,
        framework=document.framework,
        runtime="python",
        isolation=document.tenant,
        resources=resources,
    )
    return msgspec.convert({"cell": cell, "runtime_class": kind, **fields}, CellSpec)
