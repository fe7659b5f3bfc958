"""YAML as written, folders as kept, and whole rosters from made-up sources."""

import gzip
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st
from roster.build import evenly, write
from roster.entry import Entry
from roster.yaml_writer import dump

from chimera.agents import yaml
from chimera.agents.compile import compile_definition
from chimera.agents.validate import check_text

TEXT = st.characters(codec="utf-8", exclude_characters="\0")  # no reader takes a NUL
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(TEXT)
data = st.dictionaries(
    st.from_regex(r"[a-z][a-z_]{0,8}x", fullmatch=True),
    st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,8}x", fullmatch=True), inner, max_size=4)
        ),
        max_leaves=12,
    ),
    min_size=1,
    max_size=5,
)


@given(data)
def test_what_is_written_reads_back_the_same(value: dict[str, Any]) -> None:
    text = dump(value)
    assert yaml.load(text) == value
    assert pyyaml.safe_load(text) == value


@pytest.mark.parametrize(
    "text", ["yes", "No", "null", "~", "1e5", "0x10", "2024-01-01", "a: b", "- a", "# x", "", " x", "x "]
)
def test_a_string_that_could_be_something_else_stays_a_string(text: str) -> None:
    assert yaml.load(dump({"a": text})) == {"a": text}
    assert pyyaml.safe_load(dump({"a": text})) == {"a": text}


def entries(count: int) -> list[Entry]:
    return [
        Entry(
            key=f"{number:08x}",
            kind="skill",
            label=f"brew tea number {number}",
            definition="Brew tea from leaves. Serve it hot.",
            domains=("Tea rooms",),
        )
        for number in range(count)
    ]


def test_the_same_entries_make_the_same_bytes(tmp_path: Path) -> None:
    first = write(entries(40), tmp_path / "a", len)
    second = write(entries(40), tmp_path / "b", len)
    assert first.digest == second.digest
    files = sorted((tmp_path / "a").rglob("*.yaml"))
    assert len(files) == 40
    for file in files:
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()
        compile_definition(check_text(file.read_text()), tenant="default")


def test_the_folder_holds_the_last_roster_alone(tmp_path: Path) -> None:
    write(entries(10), tmp_path, len)
    write(entries(3), tmp_path, len)
    assert len(list(tmp_path.rglob("*.yaml"))) == 3


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(ValueError, match="no roster builder wrote"):
        write(entries(1), tmp_path, len)
    assert (tmp_path / "thesis.txt").exists()


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one key twice"):
        write([*entries(1), *entries(1)], tmp_path, len)


@given(st.integers(0, 50), st.integers(0, 60))
def test_a_limit_takes_from_all_parts(count: int, limit: int) -> None:
    whole = entries(count)
    part = evenly(whole, limit)
    assert len(part) == min(count, limit)
    assert [one for one in whole if one in part] == part
    if part and limit < count:
        assert part[0] is whole[0]


def test_esco_rows_become_entries_with_domains_of_the_nearest_occupations(
    esco_source: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "skills.csv").write_text(
        "id,description\n"
        'http://x/skill/aaaaaaaa-1,"brew tea make tea Brew tea for guests of a tea room."\n'
        'http://x/skill/bbbbbbbb-2,"conduct choirs lead choirs Lead the singers of a choir."\n'
    )
    (tmp_path / "occupations.csv").write_text(
        "id,description\n"
        'http://x/isco/C51,"Service workers  Service workers serve guests."\n'
        'http://x/isco/C5131,"Tea room workers  Tea room workers brew tea for guests."\n'
        'http://x/isco/C26,"Arts professionals  Arts professionals make art."\n'
        'http://x/isco/C2652,"Musicians and singers  Musicians and singers perform, conduct and lead choirs."\n'
        'http://x/occupation/cccccccc-3,"tea master tea maker Tea masters brew the tea of a tea room."\n'
        'http://x/occupation/dddddddd-4,"choirmaster choir leader The leader of the singers of a choir."\n'
    )
    source = esco_source.read(tmp_path)
    assert [one.domains for one in source.skills] == [
        ("Service workers", "Tea room workers"),
        ("Arts professionals", "Musicians and singers"),
    ]
    assert source.skills[0].key == "aaaaaaaa-1"
    assert (source.failed_skills, source.failed_occupations) == (0, 0)


def test_esco_is_missed_with_the_way_to_get_it(esco_source: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esco_source, "PACKAGE", "a-package-that-nobody-has")
    with pytest.raises(esco_source.DataMissing, match="uv run --project examples/esco"):
        esco_source.data_folder()


def test_onet_rows_become_entries(onet_source: ModuleType, tmp_path: Path) -> None:
    tables = {
        "tasks": 'soc_code\ttask_id\ttask\ttask_type\n1\t77\tBrew "green" tea, and serve it to her guests.\tCore\n',
        "occupations": "soc_code\ttitle\tdescription\n1\tTea Masters\tBrew.\n",
        "work_activities": "element_id\telement_name\tiwa_id\tdwa_id\tdwa_title\na\tb\tc\tE\tServe drinks.\n",
        "task_work_activities": "task_id\tdwa_id\n77\tE\n77\tmissing\n",
    }
    with pytest.raises(onet_source.DataMissing, match=r"tasks\.tsv\.gz"):
        onet_source.read(tmp_path)
    for name, text in tables.items():
        with gzip.open(tmp_path / f"{name}.tsv.gz", "wt") as file:
            file.write(text)
    (one,) = onet_source.read(tmp_path)
    assert one.label == 'Brew "green" tea, and serve it to her'
    assert (one.key, one.domains, one.capabilities) == ("77", ("Tea Masters",), ("Serve drinks",))


def test_the_real_onet_makes_a_roster(onet_source: ModuleType, tmp_path: Path) -> None:
    shared = Path(__file__).parents[4] / "shared" / "data"
    folder = Path(os.environ.get("CHIMERA_DATA", shared)) / "onet"
    if not folder.is_dir():
        pytest.skip(f"no O*NET data: set CHIMERA_DATA to the folder that holds onet/ (looked in {folder})")
    whole = onet_source.read(folder)
    assert len(whole) == 18_796
    assert len({one.key for one in whole}) == len(whole)
    report = write(evenly(whole, 400), tmp_path, len)
    assert min(report.frameworks[name] for name in ("AutoGen", "CrewAI", "LangGraph")) > 40
    for file in tmp_path.rglob("*.yaml"):
        compile_definition(check_text(file.read_text()), tenant="default")
