"""What the API server asks of a resource that is about to be kept, and the answer: a pure rule.

The answer is that of `chimera validate`, by the same functions: every problem at once, each with its field, what is
allowed and what was probably meant. It stands in the message, a line for each, and again as causes, for programs.
Warnings are passed on as warnings.

It refuses what makes a resource invalid, and nothing that merely is so: a change that leaves the definition as it was
(a label, a finalizer, an owner) is allowed, or a resource that came in while nobody could be asked could never be
touched again, nor deleted by whoever must take off a finalizer first. What depends on other resources and may change
after the answer, such as a name that another owner has, is the operator's to say, as a condition.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from chimera.agents.errors import Fault, InvalidDefinition

API_VERSION, KIND = "admission.k8s.io/v1", "AdmissionReview"
MOST_CAUSES, MOST_LINES, LONGEST_WARNING = 1000, 100, 200


class GroupResource(Struct, frozen=True, kw_only=True):
    """A kind as paths name it."""

    group: str = ""
    version: str = ""
    resource: str = ""


class Asked(Struct, frozen=True, kw_only=True, rename="camel"):
    """What is about to happen. `object` is as it would be kept, `old_object` as it is."""

    uid: str
    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
    resource: GroupResource
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    object: dict[str, Any] | None = None
    old_object: dict[str, Any] | None = None


class Cause(Struct, frozen=True, kw_only=True):
    """One problem, for programs."""

    reason: str
    message: str
    field: str


class Details(Struct, frozen=True, kw_only=True):
    """All problems, for programs."""

    causes: list[Cause]


class Status(Struct, frozen=True, kw_only=True):
    """Why something is refused."""

    message: str
    reason: str
    code: int
    details: Details


class Reviewed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer."""

    uid: str
    allowed: bool
    status: Status | None = None
    warnings: list[str] = []


class Review(Struct, frozen=True, kw_only=True, rename="camel"):
    """The envelope of an answer."""

    response: Reviewed
    api_version: str = API_VERSION
    kind: str = KIND


class _Question(Struct, frozen=True, kw_only=True, rename="camel"):
    api_version: Literal["admission.k8s.io/v1"]
    kind: Literal["AdmissionReview"]
    request: Asked


class Malformed(ValueError):
    """What was sent is no question."""


Resource = dict[str, Any]
Judge = Callable[[Resource], Sequence[Fault]]
"""What a resource is warned of; raises `InvalidDefinition` with all that is wrong. Paths are those of the resource."""

_questions = msgspec.json.Decoder(_Question)


def read_review(data: bytes) -> Asked:
    """The question in `data`; raises `Malformed`."""
    try:
        return _questions.decode(data).request
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"this is no {KIND} of {API_VERSION}: {error}") from error


def review(asked: Asked, judge: Judge | None) -> Reviewed:
    """The answer; without a judge for its kind, or with nothing new to judge, everything is allowed."""
    found = asked.object
    if judge is None or asked.sub_resource or asked.operation not in ("CREATE", "UPDATE") or found is None:
        return Reviewed(uid=asked.uid, allowed=True)
    if asked.operation == "UPDATE" and (asked.old_object or {}).get("spec") == found.get("spec"):
        return Reviewed(uid=asked.uid, allowed=True)
    try:
        warnings = [_short(str(fault)) for fault in judge(found)]
    except InvalidDefinition as error:
        return Reviewed(uid=asked.uid, allowed=False, status=_refusal(error))
    return Reviewed(uid=asked.uid, allowed=True, warnings=warnings)


def _refusal(error: InvalidDefinition) -> Status:
    faults = error.faults
    lines = [f"- {fault}" for fault in faults[:MOST_LINES]]
    if len(faults) > MOST_LINES:
        lines.append(f"- and {len(faults) - MOST_LINES} more")
    count = "1 problem" if len(faults) == 1 else f"{len(faults)} problems"
    causes = [
        Cause(reason="FieldValueInvalid", message=str(msgspec.structs.replace(fault, path="")), field=fault.path)
        for fault in faults[:MOST_CAUSES]
    ]
    return Status(
        message="\n".join([f"{error.title}: {count}", *lines, f"next: {error.next_step}"]),
        # kubectl prints the whole message for this reason; for `Invalid` it prints the causes alone.
        reason="BadRequest",
        code=422,
        details=Details(causes=causes),
    )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_WARNING else text[: LONGEST_WARNING - 1] + "…"
