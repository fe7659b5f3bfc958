"""What the API server's answers mean."""

import json

import pytest

from chimera.adapters.substrates.knative import errors
from chimera.adapters.substrates.knative.plan import concerns_all
from chimera.adapters.substrates.knative.refusals import LONGEST_RETRY_AFTER, refusal
from chimera.platform.reasons import Reason


def answered(code: int, message: str, **headers: str) -> errors.ClusterError:
    body = json.dumps({"kind": "Status", "message": message, "code": code})
    return refusal(code, {name.replace("_", "-"): value for name, value in headers.items()}, body.encode(), "asking")


@pytest.mark.parametrize(
    ("code", "message", "kind", "reason"),
    [
        (401, "Unauthorized", errors.CredentialsRefused, Reason.CREDENTIALS_REFUSED),
        (403, "pods is forbidden: exceeded quota: few", errors.QuotaExceeded, Reason.QUOTA_EXCEEDED),
        (
            403,
            "unable to create new content in namespace cells because it is being terminated",
            errors.NamespaceGone,
            Reason.NAMESPACE_GONE,
        ),
        (403, "admission webhook x denied the request: no", errors.ClusterRefused, Reason.OBJECT_REFUSED),
        (403, "services is forbidden: User cannot patch", errors.ClusterDenied, Reason.PERMISSION_DENIED),
        (404, "namespaces 'cells' not found", errors.NamespaceGone, Reason.NAMESPACE_GONE),
        (404, "the server could not find the requested resource", errors.NotInCluster, Reason.KNATIVE_MISSING),
        (404, 'agents.chimera.ecosystem "one" not found', errors.ObjectGone, Reason.CONFLICT),
        (409, "Apply failed with 1 conflict", errors.ClusterConflict, Reason.CONFLICT),
        (410, "too old resource version", errors.WatchExpired, Reason.HOME_AWAY),
        (422, "spec.x: Invalid value", errors.ClusterRefused, Reason.OBJECT_REFUSED),
        (400, "strict decoding error: unknown field x", errors.FieldUnknown, Reason.KNATIVE_TOO_OLD),
        (429, "too many requests", errors.ClusterThrottled, Reason.HOME_THROTTLED),
        (500, "failed to create typed patch object", errors.FieldUnknown, Reason.KNATIVE_TOO_OLD),
        (500, "failed calling webhook x: connection refused", errors.WebhookDown, Reason.WEBHOOK_DOWN),
        (500, "etcdserver: request timed out", errors.ClusterAway, Reason.HOME_AWAY),
        (503, "apiserver is shutting down", errors.ClusterAway, Reason.HOME_AWAY),
        (504, "timeout", errors.ClusterAway, Reason.HOME_AWAY),
    ],
)
def test_an_answer_has_a_cause_and_a_next_step(
    code: int, message: str, kind: type[errors.ClusterError], reason: Reason
) -> None:
    found = answered(code, message)
    assert type(found) is kind and Reason(found.reason) is reason
    assert message in found.detail
    assert found.next_step or kind is errors.WatchExpired


def test_an_object_that_is_gone_stops_no_other_and_a_kind_that_is_not_there_stops_all() -> None:
    assert not concerns_all(answered(404, 'agents.chimera.ecosystem "one" not found'))
    assert concerns_all(answered(404, "the server could not find the requested resource"))
    assert concerns_all(answered(404, 'namespaces "cells" not found'))


def test_a_server_that_names_a_time_is_believed_within_bounds() -> None:
    assert answered(429, "slow down", Retry_After="17").retry_after == 17
    assert answered(503, "slow down", Retry_After="100000").retry_after == LONGEST_RETRY_AFTER
    assert answered(429, "slow down", Retry_After="never").retry_after == answered(429, "slow down").retry_after


def test_an_answer_that_is_no_status_is_told_as_it_came() -> None:
    assert "<html>" in refusal(502, {}, b"<html>bad gateway</html>", "asking").detail
