"""What stops a scan before it can say anything."""

from chimera_host.contract.problem import ProblemError


class ScanningError(ProblemError):
    """A scan could not be made."""

    code = "scan"
    status = 500
    title = "The scan could not be made"


class InvalidWaivers(ScanningError):
    """The file of waivers can't be read, or one of them says too little or lasts too long."""

    code = "scan-invalid-waivers"
    status = 422
    title = "The waivers are not valid"
