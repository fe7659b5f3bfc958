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


class AdvisoriesUnreadable(ScanningError):
    """Advisories that were named aren't there, or can't be read at all."""

    code = "scan-advisories-unreadable"
    status = 503
    title = "The advisories can't be read"


class ImageUnreadable(ScanningError):
    """An image, or a part of it, isn't there, isn't what its digest says, or is of a kind that isn't read."""

    code = "scan-image-unreadable"
    status = 422
    title = "The image can't be read"
