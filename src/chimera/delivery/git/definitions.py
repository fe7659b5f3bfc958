"""Definitions in a commit: which files hold some, which of them a change touches, and how they are read.

A file is a definition's if it is YAML and speaks of a `schema_version`, as in a folder on disk. A definition with code
names a folder beside it (`specification.source`); a change in that folder changes the definition.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec

from chimera.agents import yaml
from chimera.agents.api import Item
from chimera.agents.bundle import PackedSource, is_ignored
from chimera.agents.catalogue import source_digest
from chimera.agents.errors import BadArchive, Fault, UnreadableText
from chimera.agents.files import Found

MARK = b"schema_version"
_YAML = (".yaml", ".yml")
_PASSED_OVER = {"node_modules", "site-packages"}


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundDefinition:
    """One document of a file: how it is taken in, its packed code, and the folder of it, from the repository's root."""

    file: str
    number: int
    first_line: int
    item: Item
    packed: PackedSource | None = None
    folder: str | None = None


def may_define(path: str) -> bool:
    """Whether a file at `path` can hold definitions."""
    *folders, name = path.split("/")
    hidden = any(part.startswith(".") or part in _PASSED_OVER for part in folders)
    return name.endswith(_YAML) and not name.startswith(".") and not hidden


def touched(paths: Iterable[str], folders: Mapping[str, Iterable[str]]) -> set[str]:
    """Files whose definitions a change of `paths` touches; `folders` are those of code, with the files naming them."""
    found: set[str] = set()
    for path in paths:
        if may_define(path):
            found.add(path)
        for parent in PurePosixPath(path).parents:
            found.update(folders.get(parent.as_posix(), ()))
    return found


def read(found: Found) -> tuple[list[FoundDefinition], list[Fault]]:
    """The definitions of a file, and what keeps it from being read."""
    try:
        documents = list(found.documents())
    except UnreadableText as error:
        return [], [error.fault]
    if not documents:
        return [], [Fault(file=found.file, line=1, message="there is no definition in it", allowed="a definition")]
    definitions: list[FoundDefinition] = []
    for number, document in enumerate(documents):
        packed, folder = None, None
        try:
            source = _source(document.text, found.file)
            if source is not None:
                packed = found.pack(source)
                folder = (PurePosixPath(found.file).parent / source).as_posix()
        except BadArchive as error:
            return [], [Fault(file=found.file, path="specification.source", message=error.detail)]
        digest = source_digest(found.data, packed.digest if packed else None, number)
        item = Item(source=digest, file=found.file, text=document.text, bundle=packed.digest if packed else None)
        definitions.append(
            FoundDefinition(
                file=found.file,
                number=number,
                first_line=document.first_line,
                item=item,
                packed=packed,
                folder=folder,
            )
        )
    return definitions, []


def placed(fault: Fault, first_line: int) -> Fault:
    """A fault of a document, at its line of the file."""
    return fault if fault.line is None else msgspec.structs.replace(fault, line=fault.line + first_line)


def is_code(path: str) -> bool:
    """Whether a file in a folder of code is packed."""
    return not is_ignored(path)


def _source(text: str, file: str) -> str | None:
    if "source:" not in text:
        return None
    try:
        data = yaml.load(text, file=file)
    except UnreadableText:
        return None
    specification = data.get("specification") if isinstance(data, dict) else None
    folder = specification.get("source") if isinstance(specification, dict) else None
    return folder if isinstance(folder, str) else None
