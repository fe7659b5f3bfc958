"""Agents' documents, decoded and kept: what the gateway must know beyond a route, off the path of a plain call."""

from collections import OrderedDict

import msgspec

from chimera.gateway.errors import AgentNotFound
from chimera.gateway.ports import RevisionSource
from chimera_host.contract.agent import AgentDocument

KEPT = 512

_decoder = msgspec.json.Decoder(AgentDocument)


class Documents:
    """The newest used documents by digest; a digest's content never changes."""

    def __init__(self, source: RevisionSource) -> None:
        """Read from `source`."""
        self._source = source
        self._kept: OrderedDict[str, AgentDocument] = OrderedDict()

    async def get(self, digest: str) -> AgentDocument:
        """The document of a revision."""
        if (known := self._kept.get(digest)) is not None:
            self._kept.move_to_end(digest)
            return known
        data = await self._source.document(digest)
        if data is None:
            raise AgentNotFound(f"no revision {digest} is stored", next_step="apply the agent again")
        document = _decoder.decode(data)
        self._kept[digest] = document
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return document
