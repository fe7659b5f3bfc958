"""The policies that the pages show are valid, and the cases beside them are cases."""

import re
from pathlib import Path

import msgspec
import yaml

from chimera.adapters.identity.cedar import Cedar
from chimera.gateway.identity import api
from chimera.gateway.identity.actions import ACTIONS, ROLES

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_policies_of_the_pages_are_valid(pages: dict[Path, str]) -> None:
    engine, seen = Cedar(), 0
    for file, text in pages.items():
        for found in BLOCK.finditer(text):
            if found[1] == "cedar":
                seen += len(engine.parse(found[2]))
                assert engine.check(found[2]) == [], file.name
    assert seen >= 5


def test_the_cases_of_the_pages_are_cases(root: Path) -> None:
    text = (root / "docs" / "guides" / "policies.md").read_text(encoding="utf-8")
    (cases,) = [found[2] for found in BLOCK.finditer(text) if "allowed:" in found[2]]
    assert len(msgspec.convert(yaml.safe_load(cases), list[api.Case])) == 3


def test_every_action_and_role_is_on_its_page(root: Path) -> None:
    page = (root / "docs" / "reference" / "actions.md").read_text(encoding="utf-8")
    for action in ACTIONS:
        assert page.count(f"| `{action}` |") == 1
    guide = (root / "docs" / "guides" / "identity.md").read_text(encoding="utf-8")
    for role in ROLES:
        assert f"| `{role}` |" in guide
