"""What can go wrong with the audit log."""

from chimera_host.contract.problem import ProblemError


class AuditError(ProblemError):
    """The audit log could not be used."""

    code = "audit"
    status = 500
    title = "The audit log could not be used"


class InvalidNote(AuditError):
    """A text is not a signed note, or not of a checkpoint, or a key is not one."""

    code = "audit-invalid-note"
    status = 422
    title = "This is no signed checkpoint"


class UntrustedCheckpoint(AuditError):
    """A checkpoint has no signature of the log's key, or contradicts what is signed already."""

    code = "audit-untrusted-checkpoint"
    status = 409
    title = "The checkpoint is not to be trusted"


class AuditKeyUnusable(AuditError):
    """The signing key is missing, can be read by others, or is not a key."""

    code = "audit-key"
    status = 503
    title = "The audit log's key can't be used"


class AuditAltered(AuditError):
    """The log is not what was signed; nothing is signed until somebody has looked."""

    code = "audit-altered"
    status = 409
    title = "The audit log was altered"


class AuditEntryNotFound(AuditError):
    """There is no such entry, or no checkpoint covers it yet."""

    code = "audit-entry-not-found"
    status = 404
    title = "There is no such entry"


class AuditUnavailable(AuditError):
    """The audit log can't be written, and the settings say that nothing may happen unrecorded."""

    code = "audit-unavailable"
    status = 503
    title = "The audit log can't be written"
