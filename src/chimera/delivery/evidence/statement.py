"""Where a revision comes from, as an in-toto Statement (v1) with SLSA's predicate of provenance (v1).

The change is the build: from a definition, at a commit where it came from Git, by checks and people, to a revision that
may become live. So the statement's subject is the revision by its digest, what went into it are its dependencies, and
each verdict and approval is a by-product with what was said and the digest of that: a resource of in-toto's has an
address, a digest or contents. Anybody who holds the public key can check it without the platform.

A statement says of a change what was so when it was signed. It is signed once it is built, and anew when more is said
of it; the last one says all.
"""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from chimera.agents.compile import COMPILER, CompiledAgent
from chimera.delivery.evidence.bom import MEDIA_TYPE, PLATFORM
from chimera.delivery.model import Change, ChangeItem, Verdict

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
PAYLOAD = "application/vnd.in-toto+json"
BUILD = "https://chimera.ecosystem/provenance/change/v1"
BUILDER = "https://chimera.ecosystem/control-plane"
_ENCODER = msgspec.json.Encoder(order="sorted")

Json = dict[str, Any]


def statement(change: Change, item: ChangeItem, agent: CompiledAgent, *, bom: str, release: str, at: float) -> bytes:
    """The statement on the revision of `item`; `bom` is the SHA-256 of its bill of materials, in hexadecimal."""
    document = agent.value.agent
    return _ENCODER.encode(
        {
            "_type": STATEMENT,
            "subject": [{"name": f"{change.tenant}/{item.agent}", "digest": _digest(agent.digest)}],
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD,
                    "externalParameters": {
                        "agent": item.agent,
                        "author": change.author,
                        "contributors": list(change.contributors),
                        "file": item.file,
                        "origin": change.origin,
                        "title": change.title,
                        "version": document.version,
                    },
                    "internalParameters": {
                        "before": item.before,
                        "compiler": COMPILER,
                        "content": change.content,
                        "framework": document.framework,
                        "risk": change.risk,
                        "risk_reasons": [
                            msgspec.to_builtins(one) for one in _of_agent(change.risk_reasons, item.agent)
                        ],
                        "runtime": agent.value.runtime,
                    },
                    "resolvedDependencies": list(_dependencies(change, item, agent)),
                },
                "runDetails": {
                    "builder": {"id": BUILDER, "version": {PLATFORM: release}},
                    "metadata": {
                        "invocationId": f"{change.id}#{change.version}",
                        "startedOn": _moment(change.created),
                        "finishedOn": _moment(at),
                    },
                    "byproducts": [
                        {"name": "sbom", "mediaType": MEDIA_TYPE, "digest": {"sha256": bom}},
                        *(_verdict(one) for one in _verdicts(change, item.agent)),
                        *_approvals(change),
                    ],
                },
            },
        }
    )


def _dependencies(change: Change, item: ChangeItem, agent: CompiledAgent) -> Iterator[Json]:
    if change.commit is not None:
        # In-toto names a commit's digest by Git's own hash function.
        kind = "gitCommit" if len(change.commit) == 40 else "sha256"
        where = {"uri": f"git+{change.repository}"} if change.repository else {}
        yield {"name": "commit", **where, "digest": {kind: change.commit}}
    if item.source:
        yield {"name": "definition", "digest": {"sha256": item.source}}
    source = agent.value.agent.source
    if source is not None:
        yield {"name": "bundle", "digest": _digest(source.bundle)}
        if source.requirements is not None:
            yield {"name": "requirements", "digest": _digest(source.requirements)}
    image, separator, digest = agent.value.runtime.partition("@")
    if separator:
        yield {"name": "image", "uri": image, "digest": _digest(digest)}


def _verdicts(change: Change, agent: str) -> list[Verdict]:
    return [one for one in change.verdicts if one.agent in (None, agent)]


def _verdict(one: Verdict) -> Json:
    said = {"at": _moment(one.at), "detail": one.detail, "evidence": one.evidence, "outcome": one.outcome}
    return _byproduct(f"verdict/{one.stage}/{one.check}", {**said, "of": one.agent or "the change"})


def _approvals(change: Change) -> Iterator[Json]:
    """Who said yes or no to this content, and who pushed it past them."""
    for one in change.approvals:
        if one.content == change.content:
            said = {"at": _moment(one.at), "by": one.by, "comment": one.comment, "decision": one.decision}
            yield _byproduct(f"approval/{one.person}", {**said, "roles": list(one.roles)})
    if change.emergency is not None:
        one_more = change.emergency
        said = {"at": _moment(one_more.at), "by": one_more.by, "reason": one_more.reason}
        yield _byproduct(f"emergency/{one_more.person}", said)


def _byproduct(name: str, said: Json) -> Json:
    return {"name": name, "digest": {"sha256": hashlib.sha256(_ENCODER.encode(said)).hexdigest()}, "annotations": said}


def _of_agent(reasons: Sequence[Any], agent: str) -> list[Any]:
    return [one for one in reasons if one.agent in (None, agent)]


def _digest(text: str) -> Json:
    kind, _, value = text.partition(":")
    return {kind: value}


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
