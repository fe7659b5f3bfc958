"""The gateway's storage in memory: the shipped fake that passes the same conformance suite as the database."""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from chimera.platform.model import CellSpec, ResourceClass, Route, RuntimeClass
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
        stored = replace(route, sequence=self.sequence)
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

    # -- RouteSource --------------------------------------------------------------------------------------------------

    async def changed_routes(self, after: int, limit: int) -> Sequence[Route]:
        """Routes changed after a sequence."""
        newer = [route for route in self.routes.values() if route.sequence > after]
        return sorted(newer, key=lambda route: route.sequence)[:limit]

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
