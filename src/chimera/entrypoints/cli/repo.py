"""`chimera repo`: a catalogue's repository. Nothing needs to run.

`protect` and what goes with it stand in `protecting`.
"""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli import protecting
from chimera.entrypoints.cli.failing import INVALID

COLUMNS = (("path", "FILE"), ("action", "WHAT"))
HOST_NAMES = ("github", "gitea", "gitlab")
_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    help="The repository's folder; by default the current one.",
)


@click.group(epilog="Example: chimera repo init catalogue")
def repo() -> None:
    """Lay out a catalogue's Git repository, and protect its branch."""


repo.add_command(protecting.protect)
repo.add_command(protecting.hook)
repo.add_command(protecting.approve)
repo.add_command(protecting.report)


@repo.command(epilog="Example: chimera repo init catalogue --host gitlab --handle '@example/{team}'")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--branch", default="main", show_default=True, help="The branch that goes live.")
@click.option("--host", type=click.Choice(HOST_NAMES), default="github", show_default=True, help="Where it is hosted.")
@click.option("--handle", default="@{team}", show_default=True, help="What the host calls a team.")
@out.output_option
def init(folder: Path, branch: str, host: str, handle: str, output: str) -> None:
    """Lay out FOLDER as a catalogue's repository; what a person wrote there stays as it is.

    Run it again to bring the generated files up to date.
    """
    from chimera.delivery.git.layout import POLICY_FILE, layout
    from chimera.delivery.git.policy import read_policy
    from chimera.delivery.git.workflow import workflow

    name = folder.resolve().name or "catalogue"
    files = layout(name, branch=branch, host=host, handle=handle)
    wanted = next(one.text for one in files if one.path == POLICY_FILE)
    written = folder / POLICY_FILE
    # A policy that is there already says where the repository is hosted.
    policy = read_policy(written.read_text("utf-8") if written.is_file() else wanted, file=POLICY_FILE)
    folder.mkdir(parents=True, exist_ok=True)
    made = workflow(policy.host, version=_version(), branch=policy.branch)
    done = [_write(folder, one) for one in (*files, made)]
    done.append(_owners(folder, policy, check=False)[0])
    out.show(done, output, columns=COLUMNS, rows=done)
    if output == "table" and not (folder / ".git").exists():
        click.echo(f"Next: cd {folder} && git init -b {policy.branch} && git add -A && git commit -s", err=True)


@repo.command(name="workflow", epilog="Example: chimera repo workflow")
@_folder
@out.output_option
def workflow_(folder: Path, output: str) -> None:
    """Write the workflow that the repository's host runs for each proposed change.

    A file that somebody edited is left alone.
    """
    from chimera.delivery.git.workflow import workflow

    policy = _policy(folder)
    done = _write(folder, workflow(policy.host, version=_version(), branch=policy.branch))
    out.show(done, output, columns=COLUMNS, rows=[done])


@repo.command(name="codeowners", epilog="Example: chimera repo codeowners --check")
@_folder
@click.option("--check", is_flag=True, help="Write nothing; fail where it isn't as the definitions say.")
@out.output_option
def codeowners_(folder: Path, check: bool, output: str) -> int:
    """Write into CODEOWNERS which team owns which definitions, as they say (`owner.team`).

    It writes between two marks, and leaves the rest of the file alone.
    """
    done, unowned = _owners(folder, _policy(folder), check=check)
    if output == "table":
        out.show(done, output, columns=COLUMNS, rows=[done])
        for path in unowned[:20]:
            click.echo(f"warning: no team owns {path}", err=True)
        if len(unowned) > 20:
            click.echo(f"… and {len(unowned) - 20:,} more", err=True)
    else:
        out.show({**done, "unowned": unowned}, output)
    if check and done["action"] != "unchanged":
        click.echo("Next: run `chimera repo codeowners`, and commit what it wrote.", err=True)
        return INVALID
    return 0


def _owners(folder: Path, policy: Any, *, check: bool) -> tuple[dict[str, str], list[str]]:
    from chimera.delivery.git.codeowners import Style, codeowners
    from chimera.delivery.git.layout import AGENTS, with_part
    from chimera.delivery.git.workflow import codeowners_place

    style: Style = "regex" if policy.host == "gitea" else "glob"
    found = codeowners(dict(_teams(folder, AGENTS)), policy.owners.name, style)
    place = codeowners_place(policy.host)
    before = _read(folder, place)
    text = with_part(before, "chimera repo codeowners", found.text)
    action = "unchanged" if before == text else "written" if before is None else "renewed"
    if action != "unchanged" and not check:
        _put(folder, place, text)
    return {"path": place, "action": action}, list(found.unowned)


def _teams(folder: Path, inner: str) -> Iterator[tuple[str, frozenset[str]]]:
    """The definitions below `inner`, with their teams; what can't be read is for `chimera validate` to say."""
    from chimera.agents import yaml
    from chimera.agents.errors import NoDefinitions, UnreadableText
    from chimera.agents.files import Collector

    try:
        for found in Collector().collect([str(folder / inner)]):
            teams: set[str] = set()
            try:
                data = [yaml.load(one.text, file=one.file) for one in found.documents()]
            except UnreadableText:
                data = []
            for one in data:
                owner = one.get("owner") if isinstance(one, dict) else None
                team = owner.get("team") if isinstance(owner, dict) else None
                if isinstance(team, str):
                    teams.add(team)
            yield Path(found.file).relative_to(folder).as_posix(), frozenset(teams)
    except NoDefinitions:
        return


def _policy(folder: Path) -> Any:
    from chimera.delivery.git.layout import POLICY_FILE
    from chimera.delivery.git.policy import RepositoryPolicy, read_policy

    text = _read(folder, POLICY_FILE)
    return RepositoryPolicy() if text is None else read_policy(text, file=POLICY_FILE)


def _write(folder: Path, wanted: Any) -> dict[str, str]:
    from chimera.delivery.git.layout import decide

    action = decide(_read(folder, wanted.path), wanted)
    if action in ("written", "renewed"):
        _put(folder, wanted.path, wanted.text)
    return {"path": wanted.path, "action": action}


def _read(folder: Path, path: str) -> str | None:
    """A file's text, None where it isn't there; raises `LayoutRefused` for what isn't a file in the folder."""
    from chimera.delivery.git.errors import LayoutRefused

    target = folder / path
    if target.is_symlink() or not target.resolve().is_relative_to(folder.resolve()):
        raise LayoutRefused(f"{target} is or leads through a link", next_step="put a plain file or folder there")
    if not target.exists():
        return None
    try:
        return target.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutRefused(f"{target} is no text that can be read: {error}", next_step="move it away") from error


def _put(folder: Path, path: str, text: str) -> None:
    from chimera.delivery.git.errors import LayoutRefused

    target = folder / path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f"{target.name}.new")
        fresh.write_text(text, "utf-8")
        fresh.replace(target)
    except OSError as error:
        raise LayoutRefused(f"{target}: {error.strerror or error}", next_step="check the folder's rights") from error


def _version() -> str:
    return importlib.metadata.version("chimera-ecosystem")
