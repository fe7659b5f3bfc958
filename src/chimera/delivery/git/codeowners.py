"""CODEOWNERS out of what definitions say of their owners (`owner.team`).

A folder whose definitions all have one team is one line; only where teams mix is each file named. So a catalogue of
thousands, kept in a folder for each team, has a line for each team. In such a file the last line that matches wins; no
two lines here match one file.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

Handle = Callable[[str], str]
"""Names a team at the Git host: `payments` is `@example/payments` there."""
Style = Literal["glob", "regex"]
"""How the host reads patterns: Gitea takes regular expressions, the others what `.gitignore` takes."""

_SPECIAL = frozenset("*?[]!\\#")


@dataclass(kw_only=True)
class _Folder:
    folders: dict[str, "_Folder"] = field(default_factory=dict)
    files: dict[str, frozenset[str]] = field(default_factory=dict)

    def teams(self) -> set[frozenset[str]]:
        found = set(self.files.values())
        for inner in self.folders.values():
            found |= inner.teams()
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeOwners:
    """The lines, and the files that none of them covers: nobody owns them, or no pattern can name them."""

    text: str
    unowned: tuple[str, ...]


def codeowners(files: Mapping[str, frozenset[str]], handle: Handle, style: Style = "glob") -> CodeOwners:
    """Who owns `files`: the teams of the definitions in each, by its path from the repository's root."""
    root = _Folder()
    for path, teams in files.items():
        *folders, name = PurePosixPath(path).parts
        here = root
        for one in folders:
            here = here.folders.setdefault(one, _Folder())
        here.files[name] = teams
    lines: list[str] = []
    unowned: list[str] = []
    _write(root, "", handle, style, lines, unowned)
    return CodeOwners(text="".join(f"{line}\n" for line in lines), unowned=tuple(sorted(unowned)))


def _write(folder: _Folder, path: str, handle: Handle, style: Style, lines: list[str], unowned: list[str]) -> None:
    teams = folder.teams()
    # The root's line would own what isn't a definition too: the policy, the workflow, the signers.
    if path and len(teams) == 1 and (only := next(iter(teams))) and _is_plain(path):
        lines.append(f"{_pattern(path + '/', style)} {_handles(only, handle)}")
        return
    for name, theirs in sorted(folder.files.items()):
        inner = f"{path}/{name}"
        if theirs and _is_plain(inner):
            lines.append(f"{_pattern(inner, style)} {_handles(theirs, handle)}")
        else:
            unowned.append(inner.removeprefix("/"))
    for name, below in sorted(folder.folders.items()):
        _write(below, f"{path}/{name}", handle, style, lines, unowned)


def _is_plain(path: str) -> bool:
    """Whether a pattern means this path alone at every host: they differ in how special characters are escaped."""
    return path.isprintable() and not _SPECIAL & set(path)


def _pattern(path: str, style: Style) -> str:
    if style == "glob":
        return path.replace(" ", "\\ ")
    return re.escape(path.removeprefix("/")) + (".*" if path.endswith("/") else "")


def _handles(teams: frozenset[str], handle: Handle) -> str:
    return " ".join(handle(team) for team in sorted(teams))
