"""Knative Services and their revisions as the plan sees them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from chimera.adapters.substrates.knative import names, objects
from chimera.adapters.substrates.knative.client import FIELD_MANAGER
from chimera.adapters.substrates.knative.objects import Condition, KnativeService, Meta, Traffic
from chimera.adapters.substrates.knative.plan import Observed, troubles
from chimera.adapters.substrates.knative.rollout import Revision, Share

SPEC_FIELD = b'"f:spec"'


def observed(services: Iterable[KnativeService], revisions: Iterable[objects.Revision]) -> dict[str, Observed]:
    """Services by name, each with its revisions. One that hasn't been looked at since its last change isn't ready."""
    of_service: defaultdict[str, list[Revision]] = defaultdict(list)
    for one in revisions:
        if one.metadata.deletion_timestamp is None:
            of_service[one.metadata.labels.get(names.KNATIVE_SERVICE, "")].append(_revision(one))
    return {item.metadata.name: _service(item, tuple(of_service[item.metadata.name])) for item in services}


def _service(item: KnativeService, revisions: tuple[Revision, ...]) -> Observed:
    meta, status, template = item.metadata, item.status, item.spec.template.metadata
    current = status.observed_generation == meta.generation
    return Observed(
        uid=meta.uid,
        generation=meta.generation,
        digest=meta.annotations.get(names.DIGEST, ""),
        cell=meta.annotations.get(names.CELL, meta.name),
        ready=current and is_ready(status.conditions),
        deleting=meta.deletion_timestamp is not None,
        foreign=_foreign(meta),
        trouble=_trouble(status.conditions) if current else None,
        initial=_number(template, names.INITIAL_SCALE, 1),
        attempt=_number(template, names.ATTEMPT, 1),
        asked=_shares(item.spec.traffic),
        carried=_shares(status.traffic),
        failed=meta.annotations.get(names.FAILED, ""),
        revisions=revisions,
    )


def _revision(item: objects.Revision) -> Revision:
    meta = item.metadata
    return Revision(
        name=meta.name,
        uid=meta.uid,
        number=int(meta.labels.get(names.CONFIGURATION_GENERATION, "0")),
        digest=meta.annotations.get(names.DIGEST, ""),
        attempt=_number(meta, names.ATTEMPT, 1),
        ready=is_ready(item.status.conditions),
        replicas=item.status.actual_replicas or 0,
        desired=item.status.desired_replicas,
        least=_number(meta, names.MIN_SCALE, 0),
        trouble=_trouble(item.status.conditions),
    )


def is_ready(conditions: Iterable[Condition]) -> bool:
    """Whether Knative says so."""
    return any(one.type == "Ready" and one.status == "True" for one in conditions)


def _trouble(conditions: Iterable[Condition]) -> tuple[str, str] | None:
    return troubles((one.type, one.status, one.reason, one.message) for one in conditions)


def _shares(traffic: Sequence[Traffic]) -> tuple[Share, ...]:
    """As asked for: a name only where one was given. As carried out: always with a name."""
    return tuple(
        Share(revision=one.revision_name or "", percent=one.percent or 0, tag=one.tag or "") for one in traffic
    )


def _foreign(meta: Meta) -> bool:
    """Whether somebody else has set a field of the spec; Knative's own controllers write the status alone."""
    return any(one.manager != FIELD_MANAGER and SPEC_FIELD in bytes(one.fields) for one in meta.managed_fields)


def _number(meta: Meta, name: str, otherwise: int) -> int:
    value = meta.annotations.get(name, "")
    return int(value) if value.isdecimal() else otherwise
