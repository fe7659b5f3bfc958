"""Definitions are found in files, folders, globs, archives and on standard input; each once, in the same order."""

import io
import os
import threading
import zipfile
from pathlib import Path

import pytest

from chimera.agents import files as module
from chimera.agents.errors import BadArchive, NoDefinitions, UnreadableFile, UnreadableText
from chimera.agents.files import Collector

DEFINITION = 'schema_version: "ADaC v2.0"\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("b.yaml", "a.yml", "sub/c.yaml", ".git/d.yaml", "node_modules/e.yaml", "f.json", ".g.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(DEFINITION)
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    return tmp_path


def names(home: Path, *given: str) -> list[str]:
    return [Path(found.file).relative_to(home).as_posix() for found in Collector().collect([*given])]


def archive(path: Path, **content: str) -> Path:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as writer:
        for name, text in content.items():
            writer.writestr(name.replace("__", "/").replace("_", "."), text)
    path.write_bytes(target.getvalue())
    return path


def test_a_folder_gives_its_definitions_and_says_what_it_passed_over(home: Path) -> None:
    collector = Collector()
    found = [Path(one.file).relative_to(home).as_posix() for one in collector.collect([str(home)])]
    assert found == ["a.yml", "b.yaml", "sub/c.yaml"]
    assert collector.skipped == [str(home / "compose.yaml")]


def test_a_file_that_is_named_is_taken_whatever_it_is(home: Path) -> None:
    assert names(home, str(home / "f.json"), str(home / "compose.yaml")) == ["f.json", "compose.yaml"]


def test_a_glob(home: Path) -> None:
    assert names(home, str(home / "**" / "*.yaml")) == ["b.yaml", "compose.yaml", "node_modules/e.yaml", "sub/c.yaml"]
    assert names(home, str(home / "*.y*ml")) == ["a.yml", "b.yaml", "compose.yaml"]


def test_each_file_comes_once(home: Path) -> None:
    given = (str(home / "b.yaml"), str(home), str(home / "*.yaml"))
    assert names(home, *given) == ["b.yaml", "a.yml", "sub/c.yaml", "compose.yaml"]


def test_an_archive(tmp_path: Path) -> None:
    path = archive(tmp_path / "all.zip", b_yaml=DEFINITION, team__a_yaml=DEFINITION, x_yaml="other: 1", readme_md="x")
    collector = Collector()
    assert [found.file for found in collector.collect([str(path)])] == [f"{path}/b.yaml", f"{path}/team/a.yaml"]
    assert collector.skipped == [f"{path}/x.yaml"]


def test_source_folders_are_packed_the_same_from_disk_and_archive(tmp_path: Path) -> None:
    (tmp_path / "team" / "code").mkdir(parents=True)
    (tmp_path / "team" / "code" / "agent.py").write_text("x = 1")
    (tmp_path / "team" / "a.yaml").write_text(DEFINITION)
    path = archive(tmp_path / "all.zip", team__a_yaml=DEFINITION, team__code__agent_py="x = 1", team__code2_py="no")
    on_disk, archived = Collector().collect([str(tmp_path / "team"), str(path)])
    assert on_disk.pack("code").digest == archived.pack("./code").digest


@pytest.mark.parametrize("source", ["../other", "/etc", "a/../../b", "", ".", "a\\b"])
def test_a_source_folder_stands_below_its_definition(tmp_path: Path, source: str) -> None:
    (tmp_path / "a.yaml").write_text(DEFINITION)
    path = archive(tmp_path / "all.zip", a_yaml=DEFINITION)
    for found in Collector().collect([str(tmp_path / "a.yaml"), str(path)]):
        with pytest.raises(BadArchive, match="not below"):
            found.pack(source)


def test_a_link_does_not_lead_a_source_folder_out(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x").write_text("x")
    (tmp_path / "agents" / "a.yaml").write_text(DEFINITION)
    (tmp_path / "agents" / "code").symlink_to(tmp_path / "secret")
    (found,) = Collector().collect([str(tmp_path / "agents")])
    with pytest.raises(BadArchive, match="not below"):
        found.pack("code")
    with pytest.raises(BadArchive, match="no source folder"):
        found.pack("none")


def test_standard_input() -> None:
    collector = Collector(stdin=lambda: DEFINITION.encode())
    (found,) = collector.collect(["-"])
    assert [(one.file, one.first_line) for one in found.documents()] == [("-", 0)]
    with pytest.raises(BadArchive, match="standard input"):
        found.pack("code")
    with pytest.raises(UnreadableFile):
        list(Collector().collect(["-"]))


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path, text = tmp_path / "pipe", DEFINITION + "# " + "x" * 200_000
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_text(text))
    writer.start()
    (found,) = Collector().collect([str(path)])
    writer.join()
    assert found.data == text.encode()


def test_documents_of_one_file_keep_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"# two\n---\n{DEFINITION}---\n\n{DEFINITION}")
    (found,) = Collector().collect([str(tmp_path)])
    assert [one.first_line for one in found.documents()] == [1, 3]


def test_nothing_found_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    for given in ([str(tmp_path)], [], [str(tmp_path / "*.yml")]):
        with pytest.raises(NoDefinitions) as caught:
            list(Collector().collect(given))
        assert caught.value.next_step
    with pytest.raises(UnreadableFile, match="no file or folder"):
        list(Collector().collect([str(tmp_path / "none.yaml")]))


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"schema_version: " + b"x" * (module.MAX_FILE_BYTES))
    with pytest.raises(UnreadableText, match="too many"):
        list(Collector().collect([str(path)]))
    path.write_bytes(b"a: " + b"x" * (1024 * 1024 + 1))
    (found,) = Collector().collect([str(path)])
    with pytest.raises(UnreadableText, match="too long"):
        list(found.documents())
    monkeypatch.setattr(module, "MAX_DOCUMENTS", 2)
    path.write_text("a: 1\n---\n" * 3)
    (found,) = Collector().collect([str(path)])
    with pytest.raises(UnreadableText, match="too many documents"):
        list(found.documents())
