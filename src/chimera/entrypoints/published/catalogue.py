"""The catalogue's operations: the control plane routes by this table, and the gateway publishes it."""

from chimera.agents import api
from chimera.agents.catalogue import Applied
from chimera.agents.compile import CanonicalDefinition
from chimera.entrypoints.published.operation import AGENT, TENANT, of_control_plane
from chimera.entrypoints.published.parameters import HEADER_KEY, KEY, page, text

MAX_KEY = 128
_BATCH_KEY = text(MAX_KEY, r"^[\x20-\x7e]+$")
WRITE = "catalogue:write"
FILTERS = {
    "framework": "only agents of this framework",
    "domain": "only agents with the tag `domain:` and this",
    "tag": "only agents with this tag, in full",
    "q": "only agents whose name, description or tags hold this text",
    "cell": "only agents of this cell",
}
"""Parameters that narrow a list of agents; several go together."""
_BACK_KEY = (HEADER_KEY, KEY, "asking again with the same one, within a day, gives the same answer and does nothing")
_operation = of_control_plane("catalogue", action="catalogue:read")

CATALOGUE = (
    _operation(
        *("GET", TENANT + "/agents", "list_agents", "Agents, in pages", api.AgentPage),
        query=(
            *((name, "string", text) for name, text in FILTERS.items()),
            *page("agents"),
        ),
    ),
    _operation(
        *("POST", TENANT + "/agents/delete", "delete_agents"),
        *("Take agents out of service, all in one transaction; names that aren't there are passed over", api.Deleted),
        body=api.Names,
        action=WRITE,
    ),
    _operation(
        *("GET", AGENT, "describe_agent", "An agent: definition, revision, cell, limits, warnings", api.AgentInFull)
    ),
    _operation("DELETE", AGENT, "delete_agent", "Take an agent out of service", api.Deleted, action=WRITE),
    _operation("GET", AGENT + "/revisions", "list_revisions", "The revisions of an agent", api.History),
    _operation(
        *("POST", AGENT + "/rollback", "roll_back", "Make an earlier revision of an agent live again", api.RolledBack),
        body=api.RollBack,
        body_required=False,
        headers=(_BACK_KEY,),
        action=WRITE,
    ),
    _operation(
        *("POST", TENANT + "/rollback", "roll_back_many"),
        *("Take many agents back to what they were, in one transaction", api.RolledBackMany),
        body=api.RollBackMany,
        headers=(_BACK_KEY,),
        action=WRITE,
    ),
    _operation(
        *("GET", TENANT + "/revisions/{digest}", "get_revision", "One revision by its digest", CanonicalDefinition)
    ),
    _operation(
        *("POST", TENANT + "/check", "check_sources", "Which sources are live and unchanged", api.LiveSources),
        body=api.Sources,
    ),
    _operation(
        *("POST", TENANT + "/batches", "begin_batch", "Begin a batch of definitions", api.OpenedBatch),
        headers=((HEADER_KEY, _BATCH_KEY, "beginning again with the same one finds the same batch"),),
        status=201,
        action=WRITE,
    ),
    _operation(
        *("POST", TENANT + "/batches/{batch}/definitions", "add_definitions", "Add definitions to a batch"),
        api.ChunkResults,
        body=api.Chunk,
        action=WRITE,
    ),
    _operation(
        *("POST", TENANT + "/batches/{batch}/commit", "commit_batch", "Put a batch into service, all or nothing"),
        Applied,
        body=api.Commit,
        body_required=False,
        action=WRITE,
    ),
    _operation(
        *("PUT", TENANT + "/bundles/{digest}", "put_bundle", "Store a source bundle", api.KeptBundle),
        body=bytes,
        takes="application/gzip",
        status=201,
        action=WRITE,
    ),
    _operation(
        *("POST", TENANT + "/apply", "apply", "Apply a few definitions at once", api.AppliedAtOnce),
        body=api.Apply,
        action=WRITE,
    ),
    _operation(
        *("POST", TENANT + "/validate", "validate", "Check definitions without applying them", api.Validated),
        body=api.Definitions,
    ),
    _operation(
        *("POST", TENANT + "/diff", "diff", "What applying definitions would change", api.Differences),
        body=api.Definitions,
    ),
    _operation(
        *("GET", "/v1/status", "status", "How the catalogue stands", api.CatalogueStatus), action="platform:read"
    ),
)
