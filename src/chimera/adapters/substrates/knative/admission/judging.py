"""What is wrong with an agent, or a rollout, that is about to be kept.

An agent may extend the templates that its namespace has now.

One that extends a template which isn't there is let in with a warning, as resources that name others are: who applies a
folder needn't mind the order in it, and the operator looks again when the template comes. Until then it isn't live, and
its condition says why.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.resources.composing import compose, name_is_taken
from chimera.adapters.substrates.knative.resources.kinds import TEMPLATES
from chimera.agents.errors import Fault, InvalidDefinition
from chimera.agents.template_library import template_names
from chimera.agents.validate import check_data
from chimera.delivery.rollout.api import policy_with
from chimera.delivery.rollout.model import Policy

_specs = msgspec.json.Decoder(dict[str, Any])


class InvalidRollout(InvalidDefinition):
    """A Rollout's spec is not valid; `faults` lists what is wrong."""

    code = "invalid-rollout"
    title = "The rollout is not valid"

    def __init__(self, faults: Sequence[Fault]) -> None:
        """Carry every fault."""
        super().__init__(faults)
        self.next_step = "correct the places named; `kubectl explain rollout.spec` says what may stand there"


def judge_rollout(resource: dict[str, Any]) -> Sequence[Fault]:
    """What a Rollout is warned of; raises `InvalidRollout` with what the API says of such a policy."""
    spec = resource.get("spec") or {}
    try:
        policy_with(Policy(), spec.get("policy") or {})
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidRollout([Fault(path="spec.policy", message=str(error))]) from None
    return ()


class AgentJudge:
    """Judges agents of all namespaces by the templates of each. `run` it."""

    def __init__(self, api: Kubernetes) -> None:
        """Know no templates yet."""
        self._templates = Following(api, TEMPLATES, namespace=None)

    async def run(self) -> None:
        """Follow templates until cancelled."""
        await self._templates.run()

    def __call__(self, resource: dict[str, Any]) -> Sequence[Fault]:
        """What it is warned of; raises `InvalidDefinition`."""
        meta = resource.get("metadata") or {}
        namespace, spec = meta.get("namespace", ""), resource.get("spec")
        extends = spec.get("extends") if isinstance(spec, Mapping) else None
        found = self._templates.objects.get((namespace, extends)) if isinstance(extends, str) else None
        own = {found.metadata.name: _specs.decode(found.spec)} if found is not None else {}
        if isinstance(extends, str) and extends not in own and not name_is_taken(extends):
            return [self._missing(namespace, extends)]
        try:
            definition = compose(spec, meta.get("name", ""), own) if isinstance(spec, dict) else spec
            return [_in_spec(fault) for fault in check_data(definition).warnings]
        except InvalidDefinition as error:
            raise InvalidDefinition([_in_spec(fault) for fault in error.faults]) from None

    def _missing(self, namespace: str, extends: str) -> Fault:
        known = sorted({*template_names(), *(key[1] for key in self._templates.objects if key[0] == namespace)})
        near = difflib.get_close_matches(extends, known, n=1)
        return Fault(
            path="spec.extends",
            message=f"there is no template {extends!r} yet, and nothing else was checked",
            allowed=", ".join(known),
            suggestion=near[0] if near else None,
            severity="warning",
        )


def _in_spec(fault: Fault) -> Fault:
    return msgspec.structs.replace(fault, path=f"spec.{fault.path}" if fault.path else "spec")
