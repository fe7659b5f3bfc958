"""Cedar, by cedarpy: parsing, checking against the schema, deciding on a parsed set.

A set is made once from the JSON form, under the ids that we choose, and used for many questions: parsing is nine
tenths of what a call on text costs (benchmarks, `policies`). The compiled engine is called by its own entry, which
takes and gives text: the wrapper around it copies the request and makes four objects that nobody reads.
"""

import functools
from collections.abc import Sequence

import cedarpy
import msgspec
from cedarpy import _internal

from chimera.gateway.policy.errors import InvalidPolicy
from chimera.gateway.policy.model import Decision
from chimera.gateway.policy.ports import Statement
from chimera.gateway.policy.vocabulary import Hierarchy, cedar_schema


class _Diagnostics(msgspec.Struct, frozen=True):
    reason: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    decision: str
    diagnostics: _Diagnostics = _Diagnostics()


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    templates: dict[str, dict[str, object]] = {}
    static_policies: dict[str, dict[str, object]] = {}


_answers = msgspec.json.Decoder(_Answer)
_documents = msgspec.json.Decoder(_Document)


class CedarPolicySet:
    """A parsed set."""

    def __init__(self, policies: cedarpy.PolicySet) -> None:
        """Decide by `policies`."""
        self._policies = policies

    def decide(self, asked: Hierarchy) -> Decision:
        """See `chimera.gateway.policy.ports.PolicySet`."""
        request = {
            "principal": {"type": asked.principal[0], "id": asked.principal[1]},
            "action": {"type": asked.action[0], "id": asked.action[1]},
            "resource": {"type": asked.resource[0], "id": asked.resource[1]},
            "context": asked.context,
        }
        answers = _internal.is_authorized_batch([request], self._policies, asked.entities, None, False)
        answer = _answers.decode(answers[0])
        diagnostics = answer.diagnostics
        return Decision(
            allowed=answer.decision == "Allow",
            reasons=tuple(sorted(diagnostics.reason)),
            errors=diagnostics.errors if answer.decision != "NoDecision" else (*diagnostics.errors, "no decision"),
        )


class Cedar:
    """The engine."""

    def parse(self, text: str) -> list[Statement]:
        """See `chimera.gateway.policy.ports.PolicyEngine`."""
        try:
            document = _documents.decode(cedarpy.policies_to_json_str(text))
        except (ValueError, msgspec.MsgspecError) as error:
            raise InvalidPolicy(f"not Cedar: {error}", next_step="see docs/guides/policies.md for examples") from error
        if document.templates:
            raise InvalidPolicy(
                "a template permits nothing by itself", next_step="write the principal and the resource into the policy"
            )
        if not document.static_policies:
            raise InvalidPolicy("there is no policy in it", next_step="write `permit (…);` or `forbid (…);`")
        return [document.static_policies[f"policy{number}"] for number in range(len(document.static_policies))]

    def check(self, text: str) -> list[str]:
        """See `chimera.gateway.policy.ports.PolicyEngine`."""
        result = cedarpy.validate_policies(text, _schema())
        return [] if result.validation_passed else [error.error for error in result.errors] or ["it is not valid"]

    def make(self, statements: Sequence[tuple[str, Statement]]) -> CedarPolicySet:
        """See `chimera.gateway.policy.ports.PolicyEngine`."""
        document = {"templates": {}, "staticPolicies": dict(statements), "templateLinks": []}
        return CedarPolicySet(cedarpy.PolicySet.from_json_str(msgspec.json.encode(document).decode()))


@functools.cache
def _schema() -> cedarpy.Schema:
    return cedarpy.Schema.from_str(cedar_schema())
