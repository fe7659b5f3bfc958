"""Whom the API server asks, where it finds them, and that a judge says what a file's check says."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.admission import manifests as admission
from chimera.adapters.substrates.knative.admission.judging import AgentJudge, judge_rollout
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.installation import Installation, manifests
from chimera.adapters.substrates.knative.objects import Identity
from chimera.adapters.substrates.knative.resources.kinds import Definition
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.agents.errors import Fault, InvalidDefinition
from chimera.agents.validate import check_text
from chimera.bootstrap.control_plane import ControlPlaneConfig
from chimera.delivery.rollout.api import policy_with
from chimera.delivery.rollout.model import Policy
from chimera.entrypoints.admission.review import Asked, GroupResource, Reviewed, review
from chimera.testing.definitions import definition

CHOSEN = Installation(knative=KnativeSettings(), database="postgresql://c@db.example/c", namespace="platform")


def test_the_api_server_finds_who_answers_by_the_name_of_the_certificate() -> None:
    found = {(one["kind"], one["metadata"]["name"]): one for one in manifests(CHOSEN)}
    (webhook,) = found["ValidatingWebhookConfiguration", "chimera.platform"]["webhooks"]
    asked = webhook["clientConfig"]["service"]
    service = found["Service", asked["name"]]
    assert f"{asked['name']}.{asked['namespace']}.svc" in admission.dns_names("platform")
    (port,) = [one for one in service["spec"]["ports"] if one["port"] == asked["port"]]
    pod = found["Deployment", "chimera-control-plane"]["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    listening = {one["name"]: one["containerPort"] for one in container["ports"]}
    text = found["ConfigMap", "chimera-config"]["data"]["control-plane.json"]
    told = msgspec.json.decode(text, type=ControlPlaneConfig).admission
    assert told is not None
    assert told.port == listening[port["targetPort"]] and told.names == admission.dns_names("platform")
    assert (told.secret, told.configuration) == ("chimera-admission", "chimera.platform")
    assert webhook["failurePolicy"] == "Ignore" and webhook["sideEffects"] == "None" and webhook["timeoutSeconds"] <= 5
    assert "caBundle" not in webhook["clientConfig"] and "data" not in found["Secret", told.secret]
    assert [rule["resources"] for rule in webhook["rules"]] == [["agents", "rollouts"]], "no status is asked for"


# -- the same words as `validate` --------------------------------------------------------------------------------------


@pytest.fixture
async def judge() -> Any:
    api = Kubernetes(ClusterAccess(server="http://127.0.0.1:9", tls=None, credentials=NoToken(), namespace=""))
    yield AgentJudge(api)
    await api.aclose()


def have(judge: AgentJudge, namespace: str, name: str, spec: dict[str, Any]) -> None:
    made = Definition(metadata=Identity(name=name, namespace=namespace), spec=Raw(msgspec.json.encode(spec)))
    judge._templates.objects[namespace, name] = made


def resource(spec: Any, name: str = "one", namespace: str = "team") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def asked(found: dict[str, Any]) -> Asked:
    return Asked(uid="u", operation="CREATE", resource=GroupResource(resource="agents"), object=found)


def without_name(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "metadata": {key: value for key, value in data["metadata"].items() if key != "name"}}


def test_the_name_may_be_left_out(judge: AgentJudge) -> None:
    assert judge(resource(without_name(definition("one")))) == []
    assert judge(resource(definition("one"))) == []


def test_a_template_of_the_namespace_is_merged_in_and_one_of_another_is_not_there(judge: AgentJudge) -> None:
    extending = {**definition("one"), "extends": "own"}
    del extending["specification"]
    (warning,) = judge(resource(extending))
    assert warning.severity == "warning" and "there is no template 'own' yet" in str(warning)
    have(judge, "others", "own", {"specification": {"framework": "CrewAI"}})
    assert [fault.severity for fault in judge(resource(extending))] == ["warning"]
    have(judge, "team", "own", {"specification": {"framework": "CrewAI"}, "tools": [{"type": "nonsense"}]})
    with pytest.raises(InvalidDefinition, match="nonsense"):
        judge(resource(extending))
    have(judge, "team", "own", {"specification": {"framework": "CrewAI"}})
    assert judge(resource(extending)) == []


def test_a_template_that_is_almost_there_is_named(judge: AgentJudge) -> None:
    have(judge, "team", "our-crew", {"specification": {"framework": "CrewAI"}})
    (warning,) = judge(resource({**definition("one"), "extends": "our-crow"}))
    assert (warning.path, warning.suggestion) == ("spec.extends", "our-crew")
    assert "autogen-conversational" in (warning.allowed or "")


leaves = st.none() | st.booleans() | st.integers(-5, 5_000) | st.text("aZ9 -.:{}\\é", max_size=12) | st.floats(-1, 1)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
)
places = st.sampled_from(
    [
        ("schema_version",),
        ("extends",),
        ("metadata",),
        ("metadata", "version"),
        ("metadata", "description"),
        ("metadata", "tags"),
        ("metadata", "nonsense"),
        ("specification",),
        ("specification", "framework"),
        ("specification", "runtime"),
        ("specification", "resources"),
        ("specification", "resources", "cpu"),
        ("capabilities", "primary_functions"),
        ("capabilities", "communication_protocols"),
        ("tools",),
        ("behaviour",),
        ("model",),
        ("scaling",),
        ("nonsense",),
    ]
)


def damaged(data: dict[str, Any], damage: list[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    for place, value in damage:
        inner: Any = data
        for name in place[:-1]:
            inner = inner.setdefault(name, {}) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[place[-1]] = value
    return data


@given(
    st.lists(st.tuples(places, values), max_size=4),
    st.sampled_from(["AutoGen", "CrewAI", "LangGraph", "function"]),
    st.sampled_from([None, "autogen-conversational", "crewai-crew"]),
)
async def test_the_webhook_says_of_any_definition_what_validate_says_of_its_file(
    damage: list[tuple[tuple[str, ...], Any]], framework: str, extends: str | None
) -> None:
    data = definition("one", specification={"framework": framework}, **({"extends": extends} if extends else {}))
    data = damaged(data, damage)
    in_file = told(with_name(data))
    api = Kubernetes(ClusterAccess(server="http://127.0.0.1:9", tls=None, credentials=NoToken(), namespace=""))
    answer = review(asked(resource(data)), AgentJudge(api))
    await api.aclose()
    errors = [fault for fault in in_file if fault.severity == "error"]
    if any(fault.path == "extends" and "there is no template" in fault.message for fault in errors):
        assert answer.allowed and len(answer.warnings) == 1
        return
    assert answer.allowed == (not errors)
    if answer.status is not None:
        lines = answer.status.message.splitlines()[1:-1]
        assert sorted(lines) == sorted(f"- {in_spec(fault)}" for fault in errors)
        assert sorted(cause.field for cause in answer.status.details.causes) == sorted(
            in_spec(fault).path for fault in errors
        )
        assert answer.status.message.splitlines()[-1] == f"next: {InvalidDefinition(errors).next_step}"
    else:
        assert answer.warnings == [str(in_spec(fault)) for fault in in_file]


def with_name(data: dict[str, Any]) -> dict[str, Any]:
    """The file that stands for the resource: one that leaves out the name has the resource's."""
    metadata = data["metadata"]
    return {**data, "metadata": {"name": "one", **metadata}} if isinstance(metadata, dict) else data


def told(data: dict[str, Any]) -> list[Fault]:
    """What `chimera validate` says of a file with this definition, without its places."""
    try:
        found = check_text(msgspec.json.encode(data).decode()).warnings
    except InvalidDefinition as error:
        found = tuple(error.faults)
    return [msgspec.structs.replace(fault, line=None, column=None) for fault in found]


def in_spec(fault: Fault) -> Fault:
    return msgspec.structs.replace(fault, path=f"spec.{fault.path}" if fault.path else "spec")


# -- rollouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [{"canary": 0}, {"steps": []}, {"steps": [101]}, {"nothing": 1}, {"error": "much"}])
def test_a_rollout_is_refused_in_the_words_of_the_api(policy: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError) as said:
        policy_with(Policy(), policy)
    answer = review(asked(resource({"policy": policy})), judge_rollout)
    assert not answer.allowed and answer.status is not None
    assert f"- spec.policy: {said.value}" in answer.status.message
    assert answer.status.message.startswith("The rollout is not valid: 1 problem")
    assert [one.field for one in answer.status.details.causes] == ["spec.policy"]


@pytest.mark.parametrize("spec", [{}, {"policy": {}}, {"policy": {"canary": 3, "steps": [1, 50.0]}, "state": "Paused"}])
def test_a_good_rollout_is_let_in(spec: dict[str, Any]) -> None:
    assert review(asked(resource(spec)), judge_rollout) == Reviewed(uid="u", allowed=True)
