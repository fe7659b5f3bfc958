"""The operations on evidence of revisions, which the control plane serves and the gateway passes on."""

from msgspec import Struct

from chimera.delivery.evidence.bom import MEDIA_TYPE
from chimera.delivery.evidence.envelope import Envelope
from chimera.entrypoints.published.operation import AGENT, Operation
from chimera.entrypoints.published.parameters import text

_REVISION = (("revision", text(71, r"^sha256:[0-9a-f]{64}$"), "the revision's digest; by default the live one"),)


class ProvenanceKeys(Struct, frozen=True, kw_only=True):
    """The public keys of all that have signed provenance here, oldest first, as `NAME+ID+BASE64`."""

    keys: list[str]


EVIDENCE = (
    Operation(
        method="GET",
        path=AGENT + "/sbom",
        name="get_sbom",
        summary="The bill of materials of a revision, as CycloneDX 1.6 JSON",
        tag="evidence",
        action="catalogue:read",
        owner="control-plane",
        media=MEDIA_TYPE,
        query=_REVISION,
    ),
    Operation(
        method="GET",
        path=AGENT + "/provenance",
        name="get_provenance",
        summary="Where a revision comes from: a signed in-toto statement (DSSE) with SLSA's provenance",
        tag="evidence",
        action="catalogue:read",
        owner="control-plane",
        answer=Envelope,
        query=_REVISION,
    ),
    Operation(
        method="GET",
        path="/v1/provenance/keys",
        name="provenance_keys",
        summary="The public keys that check provenance",
        tag="evidence",
        action="platform:read",
        owner="control-plane",
        answer=ProvenanceKeys,
    ),
)
