"""Requests that schemathesis makes of the served OpenAPI document, against a whole platform on each database.

Most break the document in one way: a parameter or a body that it doesn't allow, a field too many or missing. Whatever
comes, the answer is one that the document has, and no 5xx; a request that the document forbids is refused; nothing is
logged as an error, and no secret of the home is in any answer. What can't be said in a document (framing, encodings,
what isn't HTTP) is in `tests/integration/api/test_malformed.py`.

`CHIMERA_TEST_REQUESTS` sets how many malformed ones are sent (500 by default, half of them to each database),
`CHIMERA_TEST_SEED` which.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode, Response
from schemathesis.core.failures import FailureGroup
from schemathesis.openapi.checks import RejectedPositiveData

from chimera.testing.postgresql import PostgreSQLServer

REQUESTS = int(os.environ.get("CHIMERA_TEST_REQUESTS", "500"))
SEED = int(os.environ.get("CHIMERA_TEST_SEED", "7"))
VALID = 8
"""For so many malformed requests of an operation one is sent that is as the document says; one at least."""
TIMEOUT = 60.0
BUSY, ASKED_AGAIN = 503, 5
"""A busy machine may say so, and for how long: it is asked again then, but not for ever."""
SECRETS = ("chimera.key", "token.secret", "audit.key")
MEMBERS = ("type", "title", "status", "detail", "code", "next_step")
FIXED = {"tenant": "default", "agent": "anna"}
ENDS_WHAT_OTHERS_NEED = {"suspend_tenant"}
"""These are only done to what isn't there."""
TAKE_BYTES = {"put_bundle", "source_hook"}
"""The document can say nothing of their bodies, so only their paths can be malformed."""

ANNA = """\
schema_version: "ADaC v2.0"
metadata: {name: anna, version: "1.0.0", description: Says it again.}
specification: {framework: function}
capabilities: {primary_functions: [echo], communication_protocols: [http, sse, openai]}
behaviour: {function: {system_message: Work.}}
"""


@schemathesis.serializer("application/gzip")
def as_it_is(_: Any, value: Any) -> Any:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@dataclass
class Found:
    """What is wrong, by what is asked; how many were sent, and the statuses of their answers."""

    faults: list[str] = field(default_factory=list)
    sent: Counter[GenerationMode] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    spoilt: int = 0


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Sends cases to one platform, and judges the answers."""

    url: str
    key: str
    secrets: tuple[str, ...]
    seed: int
    session: requests.Session
    found: Found

    def send(self, case: Case, mode: GenerationMode) -> None:
        """One request."""
        if str((case.query or {}).get("follow")).lower() in ("true", "1"):
            return  # it would be answered for ever
        headers = {"Authorization": f"Bearer {self.key}"}
        self.found.sent[mode] += 1
        if (response := self._answer(case, headers)) is None:
            return
        self._judge(case, response)
        if mode is GenerationMode.POSITIVE:
            self._send_spoilt(case, headers)

    def _answer(self, case: Case, headers: dict[str, str]) -> Response | None:
        """What is answered in the end; None, and a fault, if nothing is."""
        try:
            response = case.call(base_url=self.url, session=self.session, headers=headers, timeout=TIMEOUT)
            for _ in range(ASKED_AGAIN):
                if response.status_code != BUSY or not (after := response.headers.get("retry-after")):
                    break
                time.sleep(float(after[0]))
                response = case.call(base_url=self.url, session=self.session, headers=headers, timeout=TIMEOUT)
        except (requests.RequestException, OSError) as error:
            self.found.faults.append(f"{case.operation.label}: no answer: {error!r}\n  {case!r}")
            return None
        return response

    def _send_spoilt(self, case: Case, headers: dict[str, str]) -> None:
        """The same with NUL in every text, which is JSON, and which a database may not take."""
        if isinstance(case.body, (dict, list)):
            case.body = spoilt(case.body)
        case.query = spoilt(case.query)
        if not FIXED.items() >= dict(case.path_parameters or {}).items():
            case.path_parameters = spoilt(case.path_parameters)
        if (response := self._answer(case, headers)) is None:
            return
        self.found.spoilt += 1
        if said := faults_of(response, self.secrets):
            asked = f"{response.request.method} {response.request.url} {response.request.body!r}"
            self.found.faults.append(f"with NUL: {asked[:500]}\n  " + "\n  ".join(said) + f"\n  {response.text[:400]}")

    def _judge(self, case: Case, response: Response) -> None:
        self.found.statuses[response.status_code] += 1
        said = [*self._as_documented(case, response), *faults_of(response, self.secrets)]
        if said:
            asked = f"{response.request.method} {response.request.url} {response.request.body!r}"
            self.found.faults.append(f"{asked[:500]}\n  " + "\n  ".join(said) + f"\n  {response.text[:400]}")

    def _as_documented(self, case: Case, response: Response) -> list[str]:
        try:
            case.validate_response(response, transport_kwargs={"base_url": self.url, "session": self.session})
        except FailureGroup as group:
            # A document says what a value looks like, not which agents, actions and pages there are.
            return [str(one) for one in group.exceptions if not isinstance(one, RejectedPositiveData)]
        return []


def spoilt(value: Any) -> Any:
    """`value` with NUL in every text but names of fields."""
    if isinstance(value, str):
        return f"{value[:1]}\0{value[1:]}"
    if isinstance(value, list):
        return [spoilt(one) for one in value]
    if isinstance(value, dict):
        return type(value)({name: spoilt(one) for name, one in value.items()})
    return value


def faults_of(response: Any, secrets: tuple[str, ...]) -> list[str]:
    """What is wrong with an answer, whatever was asked."""
    found = []
    if response.status_code >= 500:
        found.append(f"the status is {response.status_code}")
    if response.status_code >= 400 and response.status_code != 503:
        kind = response.headers.get("content-type", [""])
        if "application/problem+json" not in (kind if isinstance(kind, list) else [kind]):
            found.append(f"it is a {kind}")
        else:
            problem = json.loads(response.content)
            missing = [name for name in MEMBERS if not problem.get(name)]
            if missing or problem["status"] != response.status_code:
                found.append(f"the problem document is not whole: {missing}")
    said = response.content + repr(dict(response.headers)).encode()
    found += ["it holds a secret of the home" for secret in secrets if secret.encode() in said]
    return found


class Said:
    """An answer that nobody gave."""

    def __init__(self, status: int, body: Any, kind: str = "application/problem+json") -> None:
        self.status_code, self.headers = status, {"content-type": [kind]}
        self.content = body if isinstance(body, bytes) else json.dumps(body).encode()


def test_the_judgement_can_fail() -> None:
    whole = {name: "x" for name in MEMBERS} | {"status": 404}
    assert faults_of(Said(404, whole), ("secret",)) == []
    assert faults_of(Said(404, {**whole, "detail": "the secret"}), ("secret",)) == ["it holds a secret of the home"]
    assert faults_of(Said(404, {**whole, "next_step": ""}), ()) == ["the problem document is not whole: ['next_step']"]
    assert faults_of(Said(404, {**whole, "status": 400}), ())
    assert faults_of(Said(404, whole, "application/json"), ()) == ["it is a ['application/json']"]
    assert faults_of(Said(500, {**whole, "status": 500}), ()) == ["the status is 500"]


@pytest.fixture
def variables(request: pytest.FixtureRequest, dialect: str) -> Iterator[dict[str, str]]:
    """What makes a platform use the database."""
    if dialect == "sqlite":
        yield {}
        return
    server: PostgreSQLServer = request.getfixturevalue("postgresql_server")
    url = server.new_database(migrated=False)
    yield {"CHIMERA_NODE__DATABASE": url}


def test_malformed_requests_made_of_the_document(new_platform: Any, tmp_path: Path, variables: dict[str, str]) -> None:
    home = tmp_path / "home"
    platform = new_platform(home, CHIMERA_NODE__WARM_PARENTS="false", **variables)
    try:
        (tmp_path / "anna.yaml").write_text(ANNA)
        platform.ok("apply", str(tmp_path / "anna.yaml"))
        with requests.Session() as session:
            session.trust_env = False
            sender = Sender(
                url=platform.url,
                key=platform.key,
                secrets=tuple((home / name).read_text().strip() for name in SECRETS),
                session=session,
                seed=SEED + bool(variables),
                found=Found(),
            )
            _drive(sender, REQUESTS // 2)
        found = sender.found
        assert not found.faults, f"{len(found.faults)} (seed {sender.seed}):\n" + "\n".join(found.faults[:25])
        # Enough was sent, most of it malformed and refused; some was valid and done.
        assert found.sent[GenerationMode.NEGATIVE] >= REQUESTS // 2 * 0.9
        assert found.spoilt > 50
        assert found.sent[GenerationMode.NEGATIVE] > found.sent.total() * 0.6
        refused = sum(count for status, count in found.statuses.items() if status >= 400)
        assert found.sent.total() * 0.5 < refused < found.sent.total()
        platform.ok("apply", str(tmp_path / "anna.yaml"))
        assert "again" in platform.ok("invoke", "anna", "again")
    finally:
        assert platform.stop() == 0
    for log in sorted((home / "logs").glob("*.jsonl")):
        text = log.read_text()
        assert '"level":"error"' not in text, text
    assert '"level":"info"' in (home / "logs" / "gateway.jsonl").read_text()


def _drive(sender: Sender, count: int) -> None:
    """So many malformed requests, as many of each operation, few valid beside; what takes the agent away comes last."""
    answer = sender.session.get(f"{sender.url}/openapi.json", headers={"Authorization": f"Bearer {sender.key}"})
    # Without a credential of the platform each is refused alike; those are few in any case.
    config = schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})
    schema = schemathesis.openapi.from_dict(answer.json(), config=config)
    operations = [one.ok() for one in schema.get_all_operations()]
    operations.sort(key=lambda one: "delete" in _name(one))
    left = count
    for number, operation in enumerate(operations):
        each = max(1, left // (len(operations) - number))
        before = sender.found.sent[GenerationMode.NEGATIVE]
        _send(sender, operation, GenerationMode.NEGATIVE, each)
        _send(sender, operation, GenerationMode.POSITIVE, max(1, each // VALID))
        left -= sender.found.sent[GenerationMode.NEGATIVE] - before


def _name(operation: Any) -> str:
    return str(operation.definition.raw["operationId"])


def _send(sender: Sender, operation: Any, mode: GenerationMode, count: int) -> None:
    """`count` requests of an operation, about the agent that there is where that leaves something to be wrong."""
    fixed = {name: value for name, value in FIXED.items() if f"{{{name}}}" in operation.path}
    others = operation.body or operation.query or operation.headers
    if (not others and mode is GenerationMode.NEGATIVE) or _name(operation) in ENDS_WHAT_OTHERS_NEED | TAKE_BYTES:
        fixed = {}
    unknown = count // 4 if fixed else count
    for path_parameters, number in ((fixed, count - unknown), (None, unknown)):
        if not number:
            continue
        strategy = operation.as_strategy(generation_mode=mode, path_parameters=path_parameters)

        @seed(sender.seed)
        @settings(
            max_examples=number,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def run(case: Case) -> None:
            sender.send(case, mode)

        try:
            run()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE and not operation.body, "only what takes nothing can't be malformed"
