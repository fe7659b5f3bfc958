"""Secrets are found in every form that counts, and what only looks like one is left alone."""

import base64
import json
import random
import string
from pathlib import Path

import pytest

from chimera.delivery.scanning.model import SEVERITIES, at_least
from chimera.delivery.scanning.secrets import LONGEST_LINE, scan_text, scan_value, text_of

LETTERS = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def some(length: int, alphabet: str = LETTERS, seed: int = 7) -> str:
    """Made when the test runs, so that no file of the project holds anything that looks like a secret."""
    return "".join(random.Random(f"{seed}:{length}").choices(alphabet, k=length))


def part(data: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")


JWT = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'sub': 'anna', 'scope': 'all'})}.{some(43)}"
PRIVATE_KEY = "-----BEGIN " + "OPENSSH PRIVATE KEY-----\n" + some(64) + "\n-----END OPENSSH PRIVATE KEY-----"

TRUE = {
    "private-key": PRIVATE_KEY,
    "aws-key": "aws_access_key_id: AKIA" + some(16, "ABCDEFGHIJKLMNOP234567"),
    "aws-secret": f'aws_secret_access_key = "{some(40, LETTERS + "/+")}"',
    "github-token": f"token: ghp_{some(36)}",
    "gitlab-token": f"glpat-{some(20)}",
    "slack-token": f"xoxb-{some(12, string.digits)}-{some(12, string.digits)}-{some(24)}",
    "slack-webhook": f"https://hooks.slack.com/services/T{some(8)}/B{some(8)}/{some(24)}",
    "stripe-key": f"sk_live_{some(24)}",
    "anthropic-key": f"key sk-ant-api03-{some(90)}",
    "openai-key": f"OPENAI_API_KEY=sk-proj-{some(48)}",
    "google-key": f"key=AIza{some(35)}",
    "huggingface-token": f"hf_{some(34)}",
    "pypi-token": f"password = pypi-AgEIcHlwaS5vcmc{some(80)}",
    "npm-token": f"//registry.npmjs.org/:_authToken=npm_{some(36)}",
    "jwt": f"Authorization: Bearer {JWT}",
    "azure-key": f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={some(86, LETTERS + '/+')}==",
    "sendgrid-key": f"SG.{some(22)}.{some(43)}",
    "mailchimp-key": f"{some(32, HEX)}-us12",
    "telegram-token": f"bot {some(9, '123456789')}:AA{some(33)}",
    "digitalocean-token": f"dop_v1_{some(64, HEX)}",
    "databricks-token": f"dapi{some(32, HEX)}",
    "vault-token": f"hvs.{some(90)}",
    "grafana-token": f"glsa_{some(32)}_{some(8, HEX)}",
    "chimera-key": f"chk_{some(16, CROCKFORD)}_{some(52, CROCKFORD)}",
    "url-password": "postgresql://agent:Vq9" + "s7!kd02@db.internal:5432/agents",
    "assigned": 'DB_PASSWORD = "Vq9' + 's7kd02-Lm"',
    "said": "The password for the ledger is Vq9" + "s7kd02Lm.",
}

BENIGN = [
    "credentials: {TOKEN: secret:github-token}",
    'api_key = "env:MODEL_KEY"',
    "password: ${DB_PASSWORD}",
    "password = os.environ['DB_PASSWORD']",
    "token = request.headers['Authorization']",
    "api_key: <your key here>",
    'password = "changeme"',
    "token: xxxxxxxxxxxxxxxxxxxxxxxx",
    "aws_access_key_id = AKIAIOSFODNN7EXAMPLE",
    "image: registry/host@sha256:" + "0123456789abcdef" * 4,
    "numpy==2.1.0 --hash=sha256:" + "fedcba9876543210" * 4,
    "integrity sha512-" + "Q" * 86 + "==",
    "commit 3ece321bd1f27c9a62ae8b48ecb856e2d3fe46a2",
    "id: 550e8400-e29b-41d4-a716-446655440000",
    "tokens_per_day: 250000",
    "max_tokens = 4096",
    "token_limit: 100k-per-user",
    "The password is never shown to anyone.",
    "The token is refreshed automatically.",
    "Explain what an API key is and why it must be rotated.",
    "the secret: patience and good coffee beans",
    "https://example.org:8443/path?token_type=bearer",
    "git+ssh://git@github.com/team/repo.git",
    'password_file = "/run/secrets/db-1"',
    "def password(self, value: str) -> None:",
    "token = tokens[index + 1]",
    'secret_name: "db-credentials-v2"',
    "sk-learn is the name that some give scikit-learn-1.5",
    "eyJ is how a JSON web token begins",
    "AccountKey=<key>",
    "The access key is in the vault: ask team-platform1",
    "key: 1234567890abcdef1234567890abcdef",
    "color: #a1b2c3; token-color: #d4e5f6a7",
]


@pytest.mark.parametrize("rule", TRUE)
def test_a_secret_is_found_and_never_told(rule: str) -> None:
    text = f"first line\n{TRUE[rule]}\n"
    findings = scan_text(text, file="notes.txt")
    assert f"secrets/{rule}" in {one.rule for one in findings}
    (first,) = [one for one in findings if one.rule == f"secrets/{rule}"][:1]
    assert first.place.file == "notes.txt" and first.place.line == 2
    assert at_least(first.severity, "high") and first.severity in SEVERITIES
    said = repr(findings)
    longest = max((word for line in TRUE[rule].split("\n") for word in line.replace("=", " ").split()), key=len)
    assert longest not in said or rule == "private-key"


def test_all_forms_are_found_and_no_benign_line_is_one() -> None:
    found = [rule for rule, text in TRUE.items() if scan_text(text)]
    false = [line for line in BENIGN if any(at_least(one.severity, "high") for one in scan_text(line))]
    assert (len(found), len(TRUE)) == (27, 27)
    assert (false, len(BENIGN)) == ([], 33)


def test_the_pages_and_definitions_of_the_project_itself_hold_none() -> None:
    root = Path(__file__).parents[4]
    files = [*root.glob("docs/**/*.md"), *root.glob("src/chimera/**/*.yaml"), *root.glob("examples/**/*.yaml")]
    found = {f"{file.name}:{one.place.line}": one.rule for file in files for one in scan_text(file.read_text())}
    assert len(files) > 70
    assert not found


@pytest.mark.parametrize("rule", ["github-token", "url-password", "openai-key", "aws-key"])
def test_a_secret_inside_base64_is_found(rule: str) -> None:
    wrapped = base64.b64encode(f"user: {TRUE[rule]}".encode()).decode()
    (finding, *_) = scan_text(f"data: {wrapped}")
    assert finding.rule == f"secrets/{rule}"
    assert "in base64" in finding.message


def test_a_secret_in_utf_16_is_text_and_a_binary_file_is_none() -> None:
    data = TRUE["github-token"].encode("utf-16")
    text = text_of(data)
    assert text is not None and scan_text(text)
    assert text_of(b"\x7fELF\0\0") is None
    assert text_of(b"caf\xe9 \xff") is not None


@pytest.mark.parametrize("at", [0, LONGEST_LINE - 20, LONGEST_LINE, 3 * LONGEST_LINE - 300, 99_000])
def test_a_secret_in_a_long_line_is_found_wherever_it_stands(at: int) -> None:
    line = ("lorem ipsum " * 9_000)[:at] + " " + TRUE["github-token"] + " " + "dolor sit " * 1_000
    assert [one.rule for one in scan_text(line)] == ["secrets/github-token"]


@pytest.mark.parametrize(
    "line",
    [
        *("password for" + " " * 19_900, "password is" + " " * 19_900, "token\t" * 3_300, "password for a is " * 1_100),
        *("secret = " + " " * 19_900, "key" + "_" * 19_900 + "=", "aws sk" + '"' * 19_900, "a://a:" * 3_300),
    ],
)
def test_a_line_that_is_made_to_be_slow_is_read_like_any_other(line: str) -> None:
    """A pattern that tries a line in all its parts would take hours for it, and nothing else would run meanwhile."""
    assert scan_text(f"{line}\n{TRUE['github-token']}")[-1].rule == "secrets/github-token"


def test_a_key_that_is_made_to_be_slow_is_read_like_any_other() -> None:
    """A definition may have any key where it holds a schema or a call's arguments, as long as its file may be."""
    hostile = {"token" + "a_" * 400_000: "x" * 24, "token" + "_" * 800_000 + "!": "x" * 24}
    found = scan_value({"tools": [{"parameters": hostile}], "db_password": "Vq9" + "s7kd02-Lm"})
    assert [one.place.field for one in found] == ["db_password"]


@pytest.mark.parametrize("key", ["password", "db_password", "DB-API-KEY", "my.token", "client_secret_prod", "x token_"])
def test_a_key_says_what_it_holds_by_its_end(key: str) -> None:
    assert [one.rule for one in scan_value({key: "Vq9" + "s7kd02-Lm"})] == ["secrets/assigned"]


@pytest.mark.parametrize("key", ["passwordless", "max_tokens_each", "mytoken", "token_count"])
def test_a_key_that_merely_begins_so_says_nothing(key: str) -> None:
    assert scan_value({key: "Vq9" + "s7kd02-Lm"}) == []


def test_a_definitions_secret_has_its_field() -> None:
    data = {
        "behaviour": {"function": {"system_message": f"Use the key {TRUE['stripe-key']} for refunds."}},
        "tools": [{"name": "mail", "password": "Vq9" + "s7kd02-Lm", "credentials": {"KEY": "secret:mail"}}],
    }
    found = {one.place.field: one.rule for one in scan_value(data, file="a.yaml", agent="anna")}
    assert found == {
        "behaviour.function.system_message": "secrets/stripe-key",
        "tools[0].password": "secrets/assigned",
    }


def test_one_secret_in_one_place_is_one_finding_and_survives_an_edit_above_it() -> None:
    before, after = scan_text(TRUE["stripe-key"], file="a"), scan_text("new\n\n" + TRUE["stripe-key"], file="a")
    assert len(before) == 1
    assert before[0].fingerprint == after[0].fingerprint
    assert before[0].fingerprint != scan_text(TRUE["stripe-key"][:-1] + "Z", file="a")[0].fingerprint


def test_a_file_full_of_secrets_is_cut_short() -> None:
    text = "\n".join(f"token: ghp_{some(36, seed=number)}" for number in range(1_000))
    assert 200 <= len(scan_text(text)) < 210


def test_deep_and_odd_values_are_read_to_a_bound() -> None:
    deep: object = TRUE["stripe-key"]
    for _ in range(2_000):
        deep = [deep]
    assert scan_value(deep) == []
    assert scan_value({"a": None, "b": 1.5, "c": [True, {"d": ()}]}) == []
