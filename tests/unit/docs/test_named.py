"""What pages name in prose is there: settings with their defaults, series, reasons, labels, options, tests."""

import dataclasses
import re
from pathlib import Path

from chimera.entrypoints.cli.installing import install
from chimera.platform.reasons import Reason
from docs.generator import settings

CODE = re.compile(r"`([^`\n]+)`")
SETTING = re.compile(r"`([a-z]+)\.([a-z_]+)`(?: \(([0-9][0-9,.]*)( [A-Za-z]+)?\))?")
FACTOR = {" KiB": 1024, " MiB": 1024**2, " GiB": 1024**3, " minutes": 60, " hours": 3600, " days": 86_400}
PACKAGES = {"chimera_host"}
FILES = {"py", "toml", "yaml", "json", "md", "tf", "txt", "sqlite", "key"}


def prose(pages: dict[Path, str]) -> list[tuple[str, str]]:
    """The pages that people write, without their blocks of code."""
    written = {file: text for file, text in pages.items() if not {"reference", "adr"} & {*file.parts}}
    return [(file.name, re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)) for file, text in written.items()]


def test_settings_that_pages_name_exist_and_have_the_default_that_stands_beside_them(pages: dict[Path, str]) -> None:
    groups = {name: {one.name: one for one in dataclasses.fields(kind)} for name, kind in settings.groups().items()}
    wrong, seen = [], 0
    for page, text in prose(pages):
        for group, name, value, unit in SETTING.findall(text):
            if group not in groups or name in FILES:
                continue
            if name not in groups[group]:
                wrong.append(f"{page}: {group}.{name} is no setting")
            elif value:
                default = groups[group][name].default
                said = float(value.replace(",", "")) * FACTOR.get(unit, 1)
                if said != default:
                    wrong.append(f"{page}: {group}.{name} is {default}, not {value}{unit}")
                seen += 1
    assert not wrong and seen > 5


def test_series_that_pages_name_exist(root: Path, pages: dict[Path, str]) -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", (root / "docs" / "reference" / "metrics.md").read_text(), flags=re.M))
    named = {(page, one) for page, text in prose(pages) for one in re.findall(r"`(chimera_[a-z_]+)`", text)}
    assert named and not {(page, one) for page, one in named if one not in listed | PACKAGES}


def test_reasons_that_the_guide_to_kubernetes_tells_of_exist(root: Path) -> None:
    text = (root / "docs" / "guides" / "kubernetes.md").read_text().partition("## When something is wrong")[2]
    named = {one for one in CODE.findall(text) if re.fullmatch(r"([A-Z][a-z]+){2,}", one)}
    assert len(named) > 15 and named <= {one.value for one in Reason}


def test_labels_and_annotations_that_pages_name_exist(root: Path, pages: dict[Path, str]) -> None:
    code = "".join(file.read_text() for file in root.glob("src/chimera/**/*.py"))
    named = {one for _, text in prose(pages) for one in re.findall(r"`chimera\.ecosystem/([a-z][a-z-]+)[`=]", text)}
    assert named and not {one for one in named if f'"{one}"' not in code and f"/{one}" not in code}


def test_options_of_the_installation_that_its_guide_names_exist(root: Path) -> None:
    text = (root / "docs" / "guides" / "kubernetes.md").read_text()
    known = {option for parameter in install.params for option in (*parameter.opts, *parameter.secondary_opts)}
    named = set(re.findall(r"`(--[a-z-]+)", text))
    elsewhere = {"--address", "--kubeconfig", "--process", "--create-namespace", "--namespace", "--dry-run"}
    assert named - elsewhere <= known and len(named) > 10


def test_tests_that_pages_name_exist(root: Path, pages: dict[Path, str]) -> None:
    there = {file.name for file in root.glob("tests/**/*.py")} | {file.name for file in root.glob("host/tests/**/*.py")}
    named = {one for _, text in prose(pages) for one in re.findall(r"\b(test_\w+\.py)`", text)}
    assert named and named <= there
