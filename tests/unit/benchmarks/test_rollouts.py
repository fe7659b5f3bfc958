"""The measurement of rollouts: what is written is what is measured."""

from pathlib import Path

from benchmarks.rollouts import own, write
from chimera.agents.compile import compile_definition
from chimera.agents.validate import check_text


def digest(file: Path) -> str:
    return compile_definition(check_text(file.read_text(), file=str(file)), tenant="default").digest


def test_versions_are_other_revisions_of_the_same_agents(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1", range(6), 1), write(tmp_path / "2", [0, 4], 2)
    assert len(list(one.iterdir())) == 6
    for file in two.iterdir():
        assert digest(file) != digest(one / file.name)


def test_agents_of_own_code_say_their_version(tmp_path: Path) -> None:
    for version in (1, 2):
        folder = own(tmp_path / str(version), 3, version)
        told: dict[str, object] = {}
        exec((folder / "src" / "mine.py").read_text(), told)
        assert told["factory"](None)("who", None) == str(version)  # type: ignore[operator]
        assert len(list(folder.glob("*.yaml"))) == 3
