"""The operations on sources, which the control plane serves and the gateway passes on."""

from chimera.delivery.git.sources import PutSource, RemovedSource, RunSource, SourcePage, SourceView
from chimera.entrypoints.published.operation import TENANT, of_control_plane
from chimera.entrypoints.published.parameters import page

SOURCE = TENANT + "/sources/{source}"
_operation = of_control_plane("delivery")

SOURCES = (
    _operation(
        *("GET", TENANT + "/sources", "list_sources", "Branches that the catalogue follows, in pages"),
        *(SourcePage, "source:read"),
        query=page("sources"),
    ),
    _operation("GET", SOURCE, "show_source", "A source with its state and drift", SourceView, "source:read"),
    _operation(
        *("PUT", SOURCE, "put_source", "Follow a branch, or follow it otherwise", SourceView, "source:write"),
        body=PutSource,
    ),
    _operation(
        *("POST", SOURCE + "/run", "run_source", "Look now, and let named commits pass", SourceView, "source:write"),
        body=RunSource,
        body_required=False,
    ),
    _operation(
        *("DELETE", SOURCE, "remove_source", "Follow a branch no more; its agents stay live", RemovedSource),
        "source:write",
    ),
)
