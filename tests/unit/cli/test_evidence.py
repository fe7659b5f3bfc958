"""`chimera provenance verify` asks nobody, takes what the home or a given key vouches for, and refuses the rest."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from chimera.adapters.signing.ring import PUBLIC_KEYS, FileRing
from chimera.delivery.evidence.envelope import seal
from chimera.delivery.evidence.errors import ForgedEvidence
from chimera.entrypoints.cli.main import cli
from tests.unit.delivery.evidence.test_statement import AGENT, made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    signer = FileRing(tmp_path).signer()
    assert signer is not None
    target = tmp_path / "anna.intoto.json"
    target.write_bytes(msgspec.json.format(msgspec.json.encode(seal(made(), signer)), indent=2))
    return target


def verified(home: Path, file: Path, *words: str) -> str:
    arguments = ["--home", str(home), "provenance", "verify", str(file), *words]
    return str(CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False).output)


def test_a_file_of_the_home_is_good_and_says_what_it_says(tmp_path: Path, file: Path) -> None:
    output = verified(tmp_path, file)
    assert "default/anna" in output and AGENT.digest in output and "gitCommit:" in output
    assert "verdict/build/tests\tpassed" in output and "approval/user:b\tapproved" in output
    assert "was not altered" in output
    assert json.loads(verified(tmp_path, file, "--output", "json"))["predicateType"] == "https://slsa.dev/provenance/v1"


def test_an_agents_name_alone_shows_its_provenance(tmp_path: Path) -> None:
    asked = CliRunner().invoke(cli, ["--home", str(tmp_path), "provenance", "anna", "--help"])
    assert "show [OPTIONS] AGENT" in asked.output


def test_keys_may_be_given_as_a_file_or_as_themselves(tmp_path: Path, file: Path) -> None:
    keys = (tmp_path / PUBLIC_KEYS).read_text()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "keys.txt").write_text("# kept on another machine\n" + keys)
    for given in (str(elsewhere / "keys.txt"), keys.strip()):
        assert "was not altered" in verified(elsewhere, file, "--public-key", given)


def test_another_key_another_revision_and_an_altered_file_are_refused(tmp_path: Path, file: Path) -> None:
    other = FileRing(tmp_path / "other").signer
    (tmp_path / "other").mkdir()
    signer = other()
    assert signer is not None
    with pytest.raises(ForgedEvidence):
        verified(tmp_path, file, "--public-key", signer.key_id)
    assert "was not altered" in verified(tmp_path, file, "--revision", AGENT.digest)
    with pytest.raises(ForgedEvidence):
        verified(tmp_path, file, "--revision", "sha256:" + "0" * 64)
    envelope = json.loads(file.read_text())
    envelope["payload"] = ("A" if envelope["payload"][0] != "A" else "B") + envelope["payload"][1:]
    file.write_text(json.dumps(envelope))
    with pytest.raises(ForgedEvidence):
        verified(tmp_path, file)


def test_a_key_that_is_turned_is_said(tmp_path: Path, file: Path) -> None:
    done = CliRunner().invoke(
        cli, ["--home", str(tmp_path), "provenance", "rotate", "-o", "json"], standalone_mode=False
    )
    made_key = json.loads(done.output)["key"]
    assert (tmp_path / PUBLIC_KEYS).read_text().splitlines()[-1] == made_key
    assert "was not altered" in verified(tmp_path, file)
