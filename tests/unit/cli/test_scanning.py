"""`chimera scan`: what is found is told in each form, with an exit code that says what came of it."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chimera.entrypoints.cli.main import cli
from chimera.testing.images import TestImage, layer

DEFINITION = """\
schema_version: "ADaC v2.0"
metadata:
  name: {name}
  version: "1.0.0"
  description: Answers questions about invoices.
specification:
  framework: function
  source: ./code
  entrypoint: main:answer
capabilities:
  primary_functions: [answer questions]
"""
SECRET = "sk_live_" + "Vq9s7Kd02xLm4Tz8Wb6R"


ADVISORY = {
    "id": "PYSEC-1",
    "modified": datetime.datetime.now(datetime.UTC).isoformat(),
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "no-such-package"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}


@pytest.fixture
def folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    advisories = tmp_path_factory.mktemp("advisories")
    (advisories / "one.json").write_text(json.dumps(ADVISORY))
    monkeypatch.setenv("CHIMERA_SCANNING__ADVISORIES", str(advisories))
    monkeypatch.setenv("CHIMERA_KNATIVE__IMAGE", "registry.example/{framework}@sha256:" + "a" * 64)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text("def answer(text):\n    return text\n")
    (tmp_path / "anna.yaml").write_text(DEFINITION.format(name="anna"))
    return tmp_path


def scan(*words: object) -> Result:
    return CliRunner().invoke(cli, ["scan", *map(str, words)], standalone_mode=False)


def told(*words: object) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(scan(*words, "-o", "json").output)
    return answer


def test_nothing_found_is_0(folder: Path) -> None:
    done = scan(folder)
    assert done.return_value == 0, done.output
    assert told(folder)["passed"] is True


def test_a_secret_in_a_definition_has_its_field_and_line_and_the_exit_code_is_1(folder: Path) -> None:
    file = folder / "anna.yaml"
    file.write_text(f"# key: {SECRET}1\n" + file.read_text().replace("about invoices", f"with {SECRET}"))
    assert scan(file).return_value == 1
    found = told(file)["findings"]
    assert {(one["place"]["line"], one["place"].get("field")) for one in found} == {
        (1, None),
        (6, "metadata.description"),
    }
    assert SECRET not in scan(file).output


def test_a_secret_in_code_is_said_of_each_agent_that_has_it(folder: Path) -> None:
    (folder / "code" / "settings.py").write_text(f'\nKEY = "{SECRET}"\n')
    (folder / "bob.yaml").write_text(DEFINITION.format(name="bob"))
    found = told(folder)["findings"]
    assert [(one["agent"], one["place"]) for one in found] == [
        ("anna", {"file": "settings.py", "line": 2}),
        ("bob", {"file": "settings.py", "line": 2}),
    ]
    assert len({one["fingerprint"] for one in found}) == 2


def test_what_can_not_be_judged_is_2_whatever_else_is_found(folder: Path) -> None:
    (folder / "code" / "data.zip").write_bytes(b"PK\x03\x04" + b"\0" * 40)
    done = scan(folder)
    assert done.return_value == 2
    assert "data.zip can't be looked into" in done.output
    (folder / "code" / "data.zip").unlink()
    (folder / "bad.yaml").write_text("schema_version: nonsense\n")
    done = scan(folder)
    assert done.return_value == 2
    assert "it is no valid definition" in done.output


def test_a_waiver_lets_it_pass(folder: Path) -> None:
    (folder / "code" / "settings.py").write_text(f'KEY = "{SECRET}"\n')
    waivers = folder / "waivers"
    waivers.write_text(
        "waivers:\n- rule: secrets/stripe-key\n  file: settings.py\n  reason: a key of the test account\n"
        "  until: 2026-01-01\n"
    )
    assert scan(folder, "--waivers", waivers).return_value == 1
    ahead = waivers.read_text().replace("2026-01-01", "DATE")
    waivers.write_text(ahead.replace("DATE", str(datetime.datetime.now(datetime.UTC).date())))
    assert scan(folder, "--waivers", waivers).return_value == 0
    waivers.write_text(ahead.replace("DATE", "2999-01-01"))
    assert scan(folder, "--waivers", waivers).exception is not None


def test_sarif_names_file_line_rule_and_what_to_do(folder: Path) -> None:
    (folder / "code" / "settings.py").write_text(f'KEY = "{SECRET}"\n')
    log = json.loads(scan(folder, "--output", "sarif").output)
    (run,) = log["runs"]
    assert log["version"] == "2.1.0" and run["tool"]["driver"]["name"] == "chimera scan"
    (result,) = run["results"]
    assert result["ruleId"] == run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "secrets/stripe-key"
    assert result["level"] == "error" and "revoke it" in result["message"]["text"]
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "settings.py"}, "region": {"startLine": 1}}
    assert run["invocations"] == [{"executionSuccessful": True}]


def test_sarif_says_that_something_was_not_judged(folder: Path) -> None:
    (folder / "code" / "data.zip").write_bytes(b"PK\x03\x04" + b"\0" * 40)
    (run,) = json.loads(scan(folder, "--output", "sarif").output)["runs"]
    assert run["invocations"][0]["executionSuccessful"] is False
    assert "not judged" in run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]


def test_only_what_is_asked_for_runs(folder: Path) -> None:
    assert list(told(folder, "--only", "secrets")["looked"]) == ["secrets"]
    assert scan(folder, "--only", "nonsense").exception is not None


def test_a_vulnerable_dependency_has_its_line_and_the_version_to_use(folder: Path) -> None:
    (folder / "code" / "requirements.txt").write_text("no_such.package==1.0 --hash=sha256:" + "a" * 64 + "\n")
    done = scan(folder, "--only", "dependencies")
    assert done.return_value == 1, done.output
    assert "use no_such.package 1.1 or later" in done.output
    (found,) = told(folder)["findings"]
    assert found["place"] == {"file": "requirements.txt", "line": 1} and found["agent"] == "anna"


def test_without_advisories_or_with_old_ones_dependencies_are_not_judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.delenv("CHIMERA_SCANNING__ADVISORIES")
    assert scan(folder).return_value == 2
    assert scan(folder, "--only", "secrets").return_value == 0
    old = tmp_path_factory.mktemp("old") / "one.json"
    old.write_text(json.dumps(ADVISORY | {"modified": "2020-01-01T00:00:00Z"}))
    done = scan(folder, "--advisories", old)
    assert done.return_value == 2 and "days old" in done.output


def test_an_image_in_a_file_is_looked_into(folder: Path, tmp_path: Path) -> None:
    made = TestImage(layers=[layer({"app/key": f"token: {SECRET}\n".encode()})], config={"config": {}})
    file = made.archive(tmp_path / "image.tar")
    done = scan("--image", file, "--only", "images")
    assert done.return_value == 2 and "nothing in it says what is installed" in done.output
    found = told("--image", file)
    assert {one["rule"] for one in found["findings"]} == {"images/root", "images/stripe-key"}
    assert scan("--image", tmp_path / "missing.tar").return_value == 2
    assert scan().exception is not None


def test_an_image_that_an_agent_names_is_asked_of_the_named_registries_alone(folder: Path) -> None:
    file = folder / "anna.yaml"
    text = file.read_text().replace(
        "  source: ./code\n  entrypoint: main:answer\n", "  runtime: registry.example/agent:1\n"
    )
    file.write_text(text)
    done = scan(file)
    assert done.return_value == 2 and "isn't one that may be asked" in done.output
    (unjudged,) = told(file)["unjudged"]
    assert unjudged["agent"] == "anna" and unjudged["scanner"] == "images"


def test_paths_of_the_homes_settings_are_below_the_home_and_those_of_variables_below_where_one_is(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, elsewhere = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("elsewhere")
    for place in (home, elsewhere):
        (place / "osv").mkdir()
        (place / "osv" / "one.json").write_text(json.dumps(ADVISORY))
    monkeypatch.setenv("CHIMERA_HOME", str(home))
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("CHIMERA_SCANNING__ADVISORIES", "osv")
    (home / "osv" / "one.json").unlink()
    assert scan(folder).return_value == 0
    monkeypatch.delenv("CHIMERA_SCANNING__ADVISORIES")
    (home / "settings.toml").write_text('[scanning]\nadvisories = ["osv"]\n')
    assert str(home / "osv") in str(scan(folder).exception), "the home's folder is empty"
    (elsewhere / "osv" / "one.json").rename(home / "osv" / "one.json")
    assert scan(folder).return_value == 0
