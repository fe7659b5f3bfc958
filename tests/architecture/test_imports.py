"""What an import costs, and what the import-linter contracts of `pyproject.toml` can't say."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SEAMS = {"blackbox", "bundles", "config", "contract", "errors", "imports", "logs", "sending", "trace"}
FRAMEWORKS = {"autogen", "crewai", "langgraph", "langchain_core", "langsmith", "mcp", "openai"}
DATABASE = {"sqlalchemy", "alembic", "mako"}
COMMANDS = (
    *("applying", "audit", "backup", "calling", "changes", "checking", "completion", "definitions", "doctor", "events"),
    *(
        "evidence",
        "exporting",
        "identity",
        "installing",
        "looking",
        "policies",
        "quality",
        "repo",
        "rolling",
        "rollouts",
        "runtime",
    ),
    *("scanning", "sessions", "sizing", "state", "syncing", "tasks", "trying", "up", "upgrade", "upkeep", "watching"),
)


def brought_in(module: str) -> set[str]:
    """The top-level packages beyond the standard library that importing `module` loads, in a process of its own."""
    program = (
        "import importlib, sys\n"
        "before = set(sys.modules)\n"
        f"importlib.import_module({module!r})\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(loaded - sys.stdlib_module_names))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_command_line_starts_with_click_alone() -> None:
    assert brought_in("chimera.entrypoints.cli.main") == {"chimera", "click"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_brings_in_no_database_no_framework_and_no_terminal_before_it_draws(name: str) -> None:
    loaded = brought_in(f"chimera.entrypoints.cli.{name}")
    assert "click" in loaded
    assert not loaded & {*DATABASE, *FRAMEWORKS, "rich", "prometheus_client", "uvloop"}


def test_every_command_is_tested_for_what_it_brings_in() -> None:
    from chimera.entrypoints.cli.main import COMMANDS as ALL

    assert {module for module, _, _ in ALL.values()} == set(COMMANDS)


@pytest.mark.parametrize("process", ["control_plane", "gateway", "operator"])
def test_a_process_of_a_cluster_starts_without_what_its_image_leaves_out(process: str) -> None:
    assert "uv" not in brought_in(f"chimera.bootstrap.{process}"), "deploy/images/build leaves it out"


@pytest.mark.parametrize("process", ["control_plane", "gateway", "operator"])
def test_what_reads_repositories_is_loaded_by_the_process_that_does_alone(process: str) -> None:
    assert "dulwich" not in brought_in(f"chimera.bootstrap.{process}")


def test_processes_collect_garbage_again_once_all_is_imported() -> None:
    processes = [f"chimera.bootstrap.{one}" for one in ("control_plane", "gateway", "operator", "supervisor")]
    program = (
        "import argparse, gc, runpy\n"
        "argparse.ArgumentParser.parse_args = lambda self: exit(f'{gc.isenabled()} {gc.get_freeze_count() > 0}')\n"
        f"for module in {processes}:\n"
        "    gc.unfreeze()\n"
        "    try:\n"
        "        runpy.run_module(module, run_name='__main__')\n"
        "    except SystemExit as said:\n"
        "        print(module, said)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{module} True True" for module in processes], done.stderr


@pytest.mark.parametrize("module", ["chimera_host.__main__", "chimera_host.zygote", "chimera_host.process"])
def test_a_host_stands_on_few_packages_beside_its_framework(module: str) -> None:
    loaded = brought_in(module)
    assert "chimera" not in loaded
    assert not loaded & {*DATABASE, *FRAMEWORKS, "click", "rich", "yaml", "ryaml", "prometheus_client"}


@pytest.mark.parametrize("module", ["chimera.kernel.settings", "chimera.kernel.clock", "chimera.kernel.ids"])
def test_the_kernel_brings_in_nothing(module: str) -> None:
    assert brought_in(module) == {"chimera"}


def test_each_module_of_the_host_is_a_seam_or_the_hosts_own(root: Path) -> None:
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (seams,) = [contract for contract in contracts if contract["id"] == "host-seams"]
    own = {name.removeprefix("chimera_host.") for name in seams["forbidden_modules"]}
    package = root / "host" / "src" / "chimera_host"
    python = [entry for entry in package.iterdir() if entry.suffix == ".py" or (entry / "__init__.py").exists()]
    assert {entry.stem for entry in python} - {"__init__"} == own | SEAMS
    assert not own & SEAMS


def test_packages_re_export_nothing(shipped: list[Path]) -> None:
    """An `__init__` that imports makes every import of a sibling pay for all of them.

    The broker and the frameworks are imported as wholes, by name, when an agent needs them.
    """
    as_wholes = ("chimera_host/broker", "chimera_host/frameworks")
    eager = []
    for file in shipped:
        if file.name == "__init__.py" and not any(part in file.as_posix() for part in as_wholes):
            body = ast.parse(file.read_text()).body
            eager += [f"{file}:{node.lineno}" for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert not eager
