"""Everything that has a name is documented: error codes, settings, commands and options, operations, variables."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

import chimera
import chimera_host
from chimera.bootstrap.gateway_config import ModelConfig
from chimera.entrypoints.cli import failing
from chimera.entrypoints.gateway.operations import OPERATIONS
from chimera.gateway.identity.claims import IssuerConfig
from chimera_host.config import HostConfig
from docs.generator import cli, errors, metrics, settings

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def settings_groups() -> Iterator[type]:
    """Every dataclass of settings, found by looking: fields made with `setting` carry their text."""
    for module in pkgutil.walk_packages(chimera.__path__, "chimera."):
        if module.name.rpartition(".")[2] != "settings":
            continue
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if dataclasses.is_dataclass(kind) and any("doc" in field.metadata for field in dataclasses.fields(kind)):
                yield kind


def test_every_group_of_settings_is_on_the_page() -> None:
    assert set(settings_groups()) == set(settings.groups().values())


@pytest.mark.parametrize("name", sorted(settings.groups()))
def test_every_setting_is_on_the_page_with_its_text(name: str) -> None:
    page = (REFERENCE / "settings.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    for field in dataclasses.fields(settings.groups()[name]):
        assert field.metadata["doc"].endswith("."), f"{name}.{field.name} says nothing"
        assert f"| `{field.name}` |" in section


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (ModelConfig, settings.MODEL_TEXTS),
        (IssuerConfig, settings.ISSUER_TEXTS),
        (HostConfig, settings.HOST_TEXTS),
    ],
)
def test_every_field_of_a_configuration_has_a_text(kind: type[msgspec.Struct], texts: dict[str, str]) -> None:
    assert list(texts) == [field.name for field in msgspec.structs.fields(kind)]


def test_every_variable_that_the_code_reads_is_on_the_page(root: Path) -> None:
    host = {f"CHIMERA_{field.upper()}" for field in HostConfig.__struct_fields__}
    known = {re.sub(r"<.*", "", name) for name in settings.ENVIRONMENT}
    set_by_the_platform = {"CHIMERA_LOCAL_MODEL_KEY", "CHIMERA_COMPLETE"}
    found = set()
    for file in [*root.glob("src/chimera/**/*.py"), *root.glob("host/src/**/*.py")]:
        if "testing" in file.parts:
            continue
        found |= set(re.findall(r"\bCHIMERA_[A-Z][A-Z_]*", file.read_text(encoding="utf-8")))
    unknown = {name for name in found if not any(name.startswith(one) for one in known - {"CHIMERA_"})}
    of_settings = {
        f"CHIMERA_{name}__{field.name}".upper()
        for name, group in settings.groups().items()
        for field in dataclasses.fields(group)
    }
    assert "CHIMERA_NODE__MAX_HOSTS" in of_settings
    assert not unknown - host - {f"{name}_FILE" for name in host} - set_by_the_platform - of_settings


def test_every_error_code_is_on_the_page_once() -> None:
    page = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    for code in errors.codes():
        assert page.count(f"| `{code.code}` |") == 1


@pytest.mark.parametrize("code", errors.codes(), ids=lambda code: code.code)
def test_an_error_code_means_one_status_everywhere(code: errors.Code) -> None:
    assert len(code.statuses) == 1
    assert re.fullmatch(r"[a-z][a-z0-9-]*", code.code)
    if code.code != "internal":
        assert code.titles, "an error has a title"
        assert code.meanings
        assert all(meaning.endswith(".") for meaning in code.meanings)


def test_every_exit_code_is_on_the_page() -> None:
    listed = {number for number, _ in errors.EXIT_CODES}
    named = {value for name, value in vars(failing).items() if name.isupper() and isinstance(value, int)}
    assert named - {failing.SHOWN_ERRORS} <= listed
    assert {failing.exit_code(status) for status in range(400, 600)} <= listed


def test_every_command_and_option_is_on_the_page() -> None:
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    for name, command in cli.commands():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert all(f"`{option}`" in section for option in parameter.opts), f"{name} {parameter.name}"


@pytest.mark.parametrize(("name", "command"), list(cli.commands()))
def test_a_commands_help_says_what_it_does_and_shows_an_example(name: str, command: click.Command) -> None:
    assert command.help
    assert command.epilog is not None
    assert command.epilog.startswith("Example: ")
    assert f"chimera {name}" in command.epilog or isinstance(command, click.Group)


def test_every_operation_is_on_the_page() -> None:
    page = (REFERENCE / "api.md").read_text(encoding="utf-8")
    for operation in OPERATIONS:
        assert f"### `{operation.method} {operation.path}`\n" in page


def series_in_code() -> set[str]:
    """Names of series, found by looking for texts that look like one in both packages' code."""
    found: set[str] = set()
    for package in (chimera, chimera_host):
        for file in Path(package.__path__[0]).rglob("*"):
            if file.suffix in (".py", ".mjs"):
                found.update(SERIES.findall(file.read_text(encoding="utf-8")))
    return found


SERIES = re.compile(r"[\"'` ](chimera_(?:gateway|control_plane|upkeep|cell|host)_[a-z_]*[a-z])[\"'`{ ]")


def test_every_series_is_on_the_page_of_metrics() -> None:
    page = (REFERENCE / "metrics.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)` \| (?:counter|gauge|histogram) \|", page, flags=re.MULTILINE))
    known = listed | {name.removesuffix("_total") for name in listed}
    parts = {f"{name}_{end}" for name in listed for end in ("bucket", "sum", "count")}
    found = series_in_code()
    assert len(found) > 40
    assert found - parts <= known
    texts = [text for _, _, _, text in (*metrics.gateway(), *metrics.control_plane(), *metrics.NODE, *metrics.HOST)]
    assert all(text.endswith(".") for text in texts)
    named = re.findall(r"`(chimera_\w+)`", (REFERENCE.parent / "guides" / "watch.md").read_text(encoding="utf-8"))
    assert named and set(named) <= listed, "the guide names series that there are"


def test_every_series_of_the_node_agent_and_of_hosts_that_is_listed_is_there() -> None:
    assert {name for name, *_ in (*metrics.NODE, *metrics.HOST)} <= series_in_code()
