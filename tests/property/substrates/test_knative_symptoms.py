"""Evidence from any pods, revisions and Services whatever: always with words, and none of what is well."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.objects import KnativeService, Pod, Revision
from chimera.adapters.substrates.knative.symptoms import symptoms
from chimera.platform.reasons import MEANINGS, Aspect, Reason

NOW = 1_800_000_000.0
REVISIONS = ("r-1", "r-2")

moments = (
    st.none()
    | st.just("no time")
    | st.floats(-100, 2_000).map(lambda ago: datetime.fromtimestamp(NOW - ago, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
)
words = st.sampled_from(
    ["", "ErrImagePull", "CrashLoopBackOff", "ContainerCreating", "OOMKilled", "Evicted", "ExitCode1"]
)
messages = st.sampled_from(["", "exceeded quota: few", "is forbidden", "insufficient memory", "manifest unknown"])
kinds = st.sampled_from(
    ("Ready", "ContainersReady", "PodScheduled", "DisruptionTarget", "ResourcesAvailable", "ContainerHealthy")
)
conditions = st.lists(
    st.fixed_dictionaries(
        {
            "type": kinds | st.just("RoutesReady"),
            "status": st.sampled_from(["True", "False", "Unknown"]),
            "reason": words | st.sampled_from(["FailedCreate", "IngressNotConfigured", "DeletionByPodGC"]),
            "message": messages,
            "lastTransitionTime": moments,
        }
    ),
    max_size=4,
)
states = st.fixed_dictionaries(
    {},
    optional={
        "waiting": st.fixed_dictionaries({"reason": words, "message": messages}),
        "running": st.fixed_dictionaries({"startedAt": moments}),
        "terminated": st.fixed_dictionaries({"reason": words, "exitCode": st.integers(0, 255), "finishedAt": moments}),
    },
)
containers = st.fixed_dictionaries(
    {"name": st.just("host"), "ready": st.booleans(), "restartCount": st.integers(0, 5), "state": states}
    | {"lastState": states}
)


def meta(name: str, revision: str, deleted: str | None) -> dict[str, Any]:
    return {"name": name, "labels": {names.KNATIVE_REVISION: revision}, "deletionTimestamp": deleted}


pods = st.builds(
    lambda revision, deleted, phase, reason, told, parts: msgspec.convert(
        {
            "metadata": meta("pod", revision, deleted),
            "status": {"phase": phase, "reason": reason, "conditions": told, "containerStatuses": parts},
        },
        Pod,
    ),
    st.sampled_from(REVISIONS),
    moments,
    st.sampled_from(["Running", "Pending", "Failed", "Succeeded"]),
    words,
    conditions,
    st.lists(containers, max_size=2),
)
revisions = st.builds(
    lambda name, told: msgspec.convert({"metadata": {"name": name}, "status": {"conditions": told}}, Revision),
    st.sampled_from(REVISIONS),
    conditions,
)
services = st.builds(
    lambda observed, made, traffic, told: msgspec.convert(
        {
            "metadata": {"name": "c", "generation": 1, "creationTimestamp": made},
            "status": {
                "observedGeneration": observed,
                "latestCreatedRevisionName": "r-2",
                "traffic": [{"revisionName": name, "percent": 50} for name in traffic],
                "conditions": told,
            },
        },
        KnativeService,
    ),
    st.integers(0, 1),
    moments,
    st.sets(st.sampled_from(REVISIONS)),
    conditions,
)


@given(st.none() | services, st.lists(revisions, max_size=3), st.lists(pods, max_size=4))
def test_evidence_has_words_and_what_does_not_serve_blocks_nobody(
    service: KnativeService | None, some: list[Revision], parts: list[Pod]
) -> None:
    found = symptoms(service, some, parts, NOW)
    assert len(set(found)) == len(found)
    assert all(one.message and one.reason not in (Reason.AS_WANTED, Reason.IN_PROGRESS) for one in found)
    assert set(symptoms(service, some, parts[::-1], NOW)) == set(found)
    if service is None:
        return
    serving = {part.revision_name for part in service.status.traffic}
    waits = [pod for pod in parts if pod.metadata.labels[names.KNATIVE_REVISION] not in serving]
    others = [one for one in some if one.metadata.name not in serving]
    if serving:
        blocking = {
            one for one in symptoms(service, others, waits, NOW) if MEANINGS[one.reason].aspect is Aspect.STARTABLE
        }
        assert not blocking
