"""What the pages say can be done, can be done: links lead somewhere, commands exist, examples are valid."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from chimera.adapters.storage.schema.tables import metadata
from chimera.adapters.substrates.knative.resources.composing import compose
from chimera.agents.validate import check_data, check_text
from chimera.bootstrap import settings as machine
from chimera.bootstrap.gateway_config import GatewayConfig, load_settings
from chimera.entrypoints.cli.main import cli

LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
SEPARATORS = {"&&", "||", "|", ";", ">", "<", "#"}


def blocks(pages: dict[Path, str], language: str) -> Iterator[tuple[Path, str]]:
    for file, text in pages.items():
        for found in BLOCK.finditer(text):
            if found[1] == language:
                yield file, found[2]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    without_code = BLOCK.sub("", text)
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-")
        for heading in HEADING.findall(without_code)
    }


def test_links_inside_the_project_lead_somewhere(pages: dict[Path, str]) -> None:
    broken = []
    for file, text in pages.items():
        for target in LINK.findall(BLOCK.sub("", text)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            there = (file.parent / name).resolve() if name else file
            if not there.exists():
                broken.append(f"{file.name}: {target}")
            elif anchor and anchor not in anchors(pages.get(there) or there.read_text(encoding="utf-8")):
                broken.append(f"{file.name}: {target}: no such heading")
    assert not broken


def test_every_page_can_be_reached_from_the_start(root: Path, pages: dict[Path, str]) -> None:
    reached: set[Path] = set()
    waiting = [root / "README.md", root / "docs" / "index.md"]
    while waiting:
        file = waiting.pop()
        if file in reached or file not in pages:
            continue
        reached.add(file)
        targets = (target.partition("#")[0] for target in LINK.findall(pages[file]) if ":" not in target)
        waiting += [(file.parent / target).resolve() for target in targets if target]
    missing = {file for file in pages if file.is_relative_to(root / "docs")} - reached
    assert not missing


def test_the_makes_of_the_pages_are_targets(root: Path, pages: dict[Path, str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        target for _, text in blocks(pages, "") for target in re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)
    } | {target for text in pages.values() for target in re.findall(r"`make ([a-z-]+)`", text)}
    assert {"demo", "test"} <= named
    assert named <= targets


def lines(pages: dict[Path, str]) -> Iterator[tuple[str, str]]:
    """What the pages show to be typed: lines of blocks without a language, and code within sentences."""
    for file, text in blocks(pages, ""):
        for line in text.replace("\\\n", " ").splitlines():
            yield file.name, line.removeprefix("$ ")
    for file, text in pages.items():
        for code in re.findall(r"`([^`]+)`", BLOCK.sub("", text)):
            yield file.name, " ".join(code.split())


def commands(pages: dict[Path, str]) -> Iterator[tuple[str, list[str]]]:
    for where, line in lines(pages):
        if "chimera " not in line or "[" in line.partition("#")[0]:
            continue  # a usage line with brackets shows no command
        words = shlex.split(line, comments=True)
        while words:
            end = next((index for index, word in enumerate(words) if word in SEPARATORS), len(words))
            first, words = words[:end], words[end + 1 :]
            if first and first[0] in ("chimera", ".venv/bin/chimera"):
                yield f"{where}: {line}", first[1:]


def test_the_commands_of_the_pages_exist_with_their_options(pages: dict[Path, str]) -> None:
    seen = set()
    for where, given in commands(pages):
        command: click.Command = cli
        words = given
        try:
            while isinstance(command, click.Group):
                context = click.Context(command)
                _, words, _ = command.make_parser(context).parse_args(words)
                if not words:
                    break
                seen.add(words[0])
                _, found, words = command.resolve_command(context, words)
                assert found is not None, where
                command = found
            else:
                command.make_parser(click.Context(command)).parse_args(words)
        except click.UsageError as error:
            raise AssertionError(f"{where}: {error.message}") from error
    assert {"up", "init", "apply", "invoke", "chat", "diff", "describe", "logs", "top", "status"} <= seen


def test_the_definitions_of_the_pages_are_valid(pages: dict[Path, str]) -> None:
    found = [(file, text) for file, text in blocks(pages, "yaml") if "schema_version:" in text]
    assert len(found) >= 8
    for file, text in found:
        if "\nkind: Agent\n" in text:
            resource = yaml.safe_load(text)
            checked = check_data(compose(resource["spec"], resource["metadata"]["name"], {}), file=file.name)
        else:
            checked = check_text(text, file=file.name)
        assert not checked.warnings, f"{file.name}: {checked.warnings[0]}"


def test_the_settings_of_the_pages_are_valid(pages: dict[Path, str], tmp_path: Path) -> None:
    found = list(blocks(pages, "toml"))
    assert found
    for _, text in found:
        (tmp_path / machine.FILE_NAME).write_text(text, encoding="utf-8")
        loaded = machine.load(tmp_path, {})
        config = GatewayConfig(
            home="",
            key_file="",
            token_secret_file="",
            database="",
            control_plane_socket="",
            node_socket="",
            models=loaded.models,
            settings=loaded.gateway,
        )
        load_settings(config)


def test_the_programs_of_the_pages_compile(pages: dict[Path, str]) -> None:
    for file, text in blocks(pages, "python"):
        compile(text, file.name, "exec")


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX"])
def test_the_pages_are_finished(pages: dict[Path, str], word: str) -> None:
    assert not [file.name for file, text in pages.items() if re.search(rf"\b{word}\b", text)]


@pytest.mark.parametrize("start", ["README.md", "docs/index.md"])
def test_the_start_names_every_page(start: str, root: Path, pages: dict[Path, str]) -> None:
    named = {(root / start).parent / target for target in LINK.findall(pages[root / start]) if ":" not in target}
    shown = [*root.glob("docs/*.md"), *root.glob("docs/guides/*.md"), *root.glob("docs/reference/*.md")]
    missing = {file.name for file in shown} - {file.resolve().name for file in named} - {"index.md"}
    assert not missing


def test_terms_of_the_glossary_are_in_order(root: Path, pages: dict[Path, str]) -> None:
    terms = re.findall(r"^\*\*(.+?)\*\*", pages[root / "docs/glossary.md"], re.MULTILINE)
    assert len(terms) > 100
    assert terms == sorted(terms, key=lambda term: re.sub(r"[^a-z ]", " ", term.lower()))
    assert len(terms) == len(set(terms))


def test_the_architecture_names_every_table_and_package(root: Path, pages: dict[Path, str]) -> None:
    page = pages[root / "docs/architecture.md"]
    described = {
        name for row in re.findall(r"^\| (`.+?) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert described == set(metadata.tables)
    packages = {
        file.parent.name
        for top in ("src/chimera", "host/src/chimera_host")
        for file in root.glob(f"{top}/*/__init__.py")
    }
    assert packages <= set(re.findall(r"^  (\w+)/", page, re.MULTILINE))
