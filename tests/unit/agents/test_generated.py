"""What is generated is what the code says: the schema, the reference page, the texts of the fields."""

from pathlib import Path

import jsonschema_rs
import pytest

from chimera.agents import reference, schema, yaml
from chimera.agents.compile import compile_definition
from chimera.agents.descriptions import FIELDS
from chimera.agents.validate import check_text

ROOT = Path(__file__).parents[3]


def test_the_published_schema_is_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["schema", "--write", str(tmp_path)])
    assert schema.main() == 0
    current = (tmp_path / schema.FILE_NAME).read_bytes()
    assert (ROOT / "schemas" / schema.FILE_NAME).read_bytes() == current, (
        "run: python -m chimera.agents.schema --write schemas"
    )


def test_the_reference_page_is_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["reference", "--write", str(tmp_path)])
    assert reference.main() == 0
    current = (tmp_path / reference.FILE_NAME).read_bytes()
    assert (ROOT / "docs" / "reference" / reference.FILE_NAME).read_bytes() == current, (
        "run: python -m chimera.agents.reference --write docs/reference"
    )


def test_the_schema_is_one() -> None:
    jsonschema_rs.meta.validate(schema.definition_schema())


def test_every_field_has_a_text_and_every_text_a_field() -> None:
    components = schema.definition_schema()["$defs"]
    for name, component in components.items():
        for field, what in component["properties"].items():
            texts = [option.get("description") for option in (what, *what.get("anyOf", ()))]
            assert any(texts), f"{name}.{field} has no text"
    assert set(FIELDS) <= set(components)


def test_the_pages_example_is_a_definition() -> None:
    checked = check_text(reference.EXAMPLE)
    assert not checked.warnings
    assert compile_definition(checked, tenant="default").digest.startswith("sha256:")
    assert jsonschema_rs.Draft202012Validator(schema.definition_schema()).is_valid(yaml.load(reference.EXAMPLE))
