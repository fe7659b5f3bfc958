"""What can go wrong with evidence of revisions."""

from chimera_host.contract.problem import ProblemError


class EvidenceError(ProblemError):
    """Evidence of a revision could not be given."""

    title = "There is no evidence"


class NoEvidence(EvidenceError):
    """A file is no envelope with a statement of provenance."""

    code = "no-provenance"
    status = 422
    title = "This is no provenance"


class EvidenceMissing(EvidenceError):
    """Nothing is kept of where this revision comes from."""

    code = "evidence-missing"
    status = 404
    title = "Nothing is known of where the revision comes from"


class ForgedEvidence(EvidenceError):
    """No key of the platform has signed this, or it was altered since."""

    code = "forged-provenance"
    status = 409
    title = "The provenance is not the platform's"


class EvidenceKeyUnusable(EvidenceError):
    """The key that signs provenance is missing, can be read by others, or is not a key."""

    code = "provenance-key"
    status = 503
    title = "The key of provenance can't be used"
