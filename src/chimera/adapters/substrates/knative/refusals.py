"""What the API server's answers mean: from a status and its message to the error that says what to do about it.

Kubernetes has few codes for many causes: a quota, a webhook, a namespace that ends and a missing right are all 403, a
webhook that doesn't answer is 500. So the message is looked at, whose words have stood for years.
"""

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct

from chimera.adapters.substrates.knative.errors import (
    ClusterAway,
    ClusterConflict,
    ClusterDenied,
    ClusterError,
    ClusterRefused,
    ClusterThrottled,
    CredentialsRefused,
    FieldUnknown,
    NamespaceGone,
    NotInCluster,
    ObjectGone,
    QuotaExceeded,
    WatchExpired,
    WebhookDown,
)

RETRY_AFTER = 5.0
LONGEST_RETRY_AFTER = 300.0


class Status(Struct, frozen=True, kw_only=True):
    """What the API server answers instead of an object."""

    message: str = ""
    reason: str = ""
    code: int = 0


_statuses = msgspec.json.Decoder(Status)


def code_of(data: bytes | msgspec.Raw) -> int:
    """The code of a status."""
    return _statuses.decode(data).code


def refusal(code: int, headers: Mapping[str, str], data: bytes, what: str) -> ClusterError:
    """The error that an answer is; `what` was asked."""
    try:
        status = _statuses.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        status = Status(message=data[:300].decode(errors="replace"))
    detail = f"{what}: {status.message or status.reason or code}"
    made = _BY_CODE.get(code, _other)(detail, status.message)
    if made.retry_after is not None and "Retry-After" in headers:
        made.retry_after = _seconds(headers["Retry-After"])
    return made


def _unknown(detail: str, _: str) -> ClusterError:
    return CredentialsRefused(
        f"{detail}; a token is refused, too, while this machine's clock and the API server's differ by much",
        next_step="log in to the cluster again or mount a fresh token, and compare the clocks",
        retry_after=RETRY_AFTER,
    )


def _forbidden(detail: str, message: str) -> ClusterError:
    if "exceeded quota" in message:
        return QuotaExceeded(
            detail,
            next_step="raise the namespace's ResourceQuota, or lower what cells may use (`knative.max_hosts`)",
            retry_after=30.0,
        )
    if "is being terminated" in message:
        return _namespace_gone(detail)
    if "denied the request" in message:  # a webhook chooses its own status, and most say 403
        return ClusterRefused(detail, next_step="see the policy or webhook that the message names")
    return ClusterDenied(detail, next_step="grant it: `chimera install --dry-run -o yaml` prints the roles")


def _not_found(detail: str, message: str) -> ClusterError:
    if message.startswith("namespaces "):
        return _namespace_gone(detail)
    if message.endswith('" not found'):  # one object, by its name; a kind that isn't there is told in other words
        return ObjectGone(detail, next_step="look whether somebody deleted it")
    return NotInCluster(detail, next_step="see whether Knative Serving and the namespace are there")


def _namespace_gone(detail: str) -> ClusterError:
    return NamespaceGone(detail, next_step="`chimera install --substrate knative` makes it again")


def _conflict(detail: str, _: str) -> ClusterError:
    return ClusterConflict(
        detail, next_step="see who owns the fields: `kubectl get … --show-managed-fields`", retry_after=1.0
    )


def _expired(detail: str, _: str) -> ClusterError:
    return WatchExpired(detail)


def _throttled(detail: str, _: str) -> ClusterError:
    return ClusterThrottled(detail, next_step="it is asked again by itself", retry_after=RETRY_AFTER)


def _invalid(detail: str, message: str) -> ClusterError:
    if "unknown field" in message:
        return _field(detail)
    return ClusterRefused(detail, next_step="the message names the field, or the webhook that refused it")


def _field(detail: str) -> ClusterError:
    return FieldUnknown(detail, next_step="run a release of Knative that has the field")


def _other(detail: str, message: str) -> ClusterError:
    if "failed to create typed patch object" in message:  # a field that the kind doesn't have
        return _field(detail)
    if "failed calling webhook" in message:
        return WebhookDown(
            detail, next_step="see whether the webhook that the message names runs", retry_after=RETRY_AFTER
        )
    return ClusterAway(detail, next_step="see the API server's log", retry_after=RETRY_AFTER)


_BY_CODE: dict[int, Callable[[str, str], ClusterError]] = {
    401: _unknown,
    403: _forbidden,
    404: _not_found,
    409: _conflict,
    410: _expired,
    429: _throttled,
    **dict.fromkeys((400, 405, 415, 422), _invalid),
}


def _seconds(value: str) -> float:
    return min(LONGEST_RETRY_AFTER, max(1.0, float(value))) if value.isdecimal() else RETRY_AFTER
