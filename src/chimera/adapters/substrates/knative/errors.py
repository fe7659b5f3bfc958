"""What a cluster answers instead of doing it, told apart by what to do about it.

`retry_after` is set where the same request may succeed later by itself. Everything else waits for a person, and the
next step says for what. Each is a reason of a cell's condition, too.
"""

from chimera.platform.errors import PlatformError
from chimera.platform.reasons import Reason


class ClusterError(PlatformError):
    """The cluster did not do what was asked."""

    code = "cluster-failed"
    status = 502
    title = "The cluster failed"
    reason: str = Reason.HOME_AWAY.value


class ClusterAway(ClusterError):
    """The API server doesn't answer."""

    code = "cluster-away"
    status = 503
    title = "The cluster does not answer"


class WebhookDown(ClusterError):
    """A webhook that the API server asks before it takes an object doesn't answer."""

    code = "cluster-webhook"
    status = 503
    title = "A webhook of the cluster does not answer"
    reason = Reason.WEBHOOK_DOWN.value


class ClusterThrottled(ClusterError):
    """The API server has too much to do."""

    code = "cluster-throttled"
    status = 503
    title = "The cluster asks to slow down"
    reason = Reason.HOME_THROTTLED.value


class CredentialsRefused(ClusterError):
    """The API server doesn't know who asks."""

    code = "cluster-credentials"
    status = 401
    title = "The cluster does not accept the credentials"
    reason = Reason.CREDENTIALS_REFUSED.value


class ClusterConflict(ClusterError):
    """Somebody else changed or owns what was to be changed."""

    code = "cluster-conflict"
    status = 409
    title = "Somebody else changed the same object"
    reason = Reason.CONFLICT.value


class ClusterDenied(ClusterError):
    """The credentials are not accepted, or don't allow it."""

    code = "cluster-denied"
    status = 403
    title = "The cluster does not allow it"
    reason = Reason.PERMISSION_DENIED.value


class QuotaExceeded(ClusterError):
    """The namespace's quota has no room."""

    code = "cluster-quota"
    status = 403
    title = "The namespace's quota is used up"
    reason = Reason.QUOTA_EXCEEDED.value


class ClusterRefused(ClusterError):
    """The object isn't valid there, or an admission webhook refused it."""

    code = "cluster-refused"
    status = 422
    title = "The cluster refused the object"
    reason = Reason.OBJECT_REFUSED.value


class FieldUnknown(ClusterRefused):
    """The kind doesn't have a field in the release that the cluster runs."""

    code = "cluster-field"
    title = "The cluster's release does not know a field"
    reason = Reason.KNATIVE_TOO_OLD.value


class NotInCluster(ClusterError):
    """The object, or its kind, isn't there."""

    code = "not-in-cluster"
    status = 404
    title = "The cluster has no such thing"
    reason = Reason.KNATIVE_MISSING.value


class ObjectGone(NotInCluster):
    """The cluster has the kind, and no object of that name: no other object is the worse for it."""

    code = "object-gone"
    title = "The cluster has no object of that name"
    reason = Reason.CONFLICT.value


class NamespaceGone(NotInCluster):
    """The namespace isn't there, or is being deleted."""

    code = "namespace-gone"
    status = 404
    title = "The namespace is gone"
    reason = Reason.NAMESPACE_GONE.value


class WatchExpired(ClusterError):
    """The place in the history to watch from is too old: list anew."""

    code = "watch-expired"
    status = 410
    title = "The watch is too old"


class AccessFault(ClusterError):
    """There is no usable way to reach the cluster: no kubeconfig, or one that can't be read."""

    code = "cluster-access"
    status = 400
    title = "No usable access to a cluster"
