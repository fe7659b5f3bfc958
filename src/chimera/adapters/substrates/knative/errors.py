"""What a cluster answers instead of doing it, told apart by what to do about it.

`retry_after` is set where the same request may succeed later by itself. Everything else waits for a person, and the
next step says for what.
"""

from chimera.platform.errors import PlatformError


class ClusterError(PlatformError):
    """The cluster did not do what was asked."""

    code = "cluster-failed"
    status = 502
    title = "The cluster failed"


class ClusterAway(ClusterError):
    """The API server doesn't answer."""

    code = "cluster-away"
    status = 503
    title = "The cluster does not answer"


class ClusterThrottled(ClusterError):
    """The API server has too much to do."""

    code = "cluster-throttled"
    status = 503
    title = "The cluster asks to slow down"


class ClusterConflict(ClusterError):
    """Somebody else changed or owns what was to be changed."""

    code = "cluster-conflict"
    status = 409
    title = "Somebody else changed the same object"


class ClusterDenied(ClusterError):
    """The credentials are not accepted, or don't allow it."""

    code = "cluster-denied"
    status = 403
    title = "The cluster does not allow it"


class QuotaExceeded(ClusterError):
    """The namespace's quota has no room."""

    code = "cluster-quota"
    status = 403
    title = "The namespace's quota is used up"


class ClusterRefused(ClusterError):
    """The object isn't valid there, or an admission webhook refused it."""

    code = "cluster-refused"
    status = 422
    title = "The cluster refused the object"


class NotInCluster(ClusterError):
    """The object, or its kind, isn't there."""

    code = "not-in-cluster"
    status = 404
    title = "The cluster has no such thing"


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
