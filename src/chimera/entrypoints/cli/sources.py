"""Definitions as the command line finds them: their text, their digest, their source folder, and how they are sent."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from chimera.agents import yaml
from chimera.agents.bundle import PackedSource
from chimera.agents.catalogue import source_digest
from chimera.agents.errors import Fault, InvalidDefinition, UnreadableText
from chimera.agents.files import Collector, Document, Found
from chimera.agents.validate import check_text
from chimera.entrypoints.cli.client import Api

_SOURCE_KEY = "source"


@dataclass(kw_only=True)
class Source:
    """One definition in a file. `number` is its place among the file's documents."""

    found: Found
    document: Document
    number: int
    packed: PackedSource | None = None
    fault: Fault | None = None
    _digest: str | None = field(default=None)

    @property
    def digest(self) -> str:
        """What the catalogue remembers it by."""
        if self._digest is None:
            bundle = self.packed.digest if self.packed else None
            self._digest = source_digest(self.found.data, bundle, self.number)
        return self._digest

    def item(self) -> dict[str, Any]:
        """How it is sent: data where it can be parsed (half the server's work), else its text for the errors."""
        sent: dict[str, Any] = {"source": self.digest, "file": self.document.file}
        if self.packed is not None:
            sent["bundle"] = self.packed.digest
        try:
            data = yaml.load(self.document.text, file=self.document.file)
        except UnreadableText:
            data = None
        if isinstance(data, dict):
            return {**sent, "definition": data}
        return {**sent, "text": self.document.text}

    def check(self) -> list[Fault]:
        """Faults and warnings, with their places."""
        if self.fault is not None:
            return [self.fault]
        try:
            files = self.packed.files if self.packed is not None else None
            checked = check_text(
                self.document.text, file=self.document.file, first_line=self.document.first_line, files=files
            )
        except InvalidDefinition as error:
            return list(error.faults)
        except UnreadableText as error:
            return [error.fault]
        return list(checked.warnings)

    async def send_bundle(self, api: Api) -> None:
        """Send its packed source folder, where it has one."""
        if self.packed is not None:
            await api.send("PUT", api.path("bundles") + "/" + quote(self.packed.digest, safe=""), self.packed.data)


def read_sources(paths: Sequence[str]) -> Iterator[Source]:
    """Every definition that `paths` name, in a fixed order, with source folders packed."""
    collector = Collector(stdin=lambda: sys.stdin.buffer.read())
    for found in collector.collect(paths):
        try:
            documents = list(found.documents())
        except UnreadableText as error:
            empty = Document(file=found.file, text="")
            yield Source(found=found, document=empty, number=0, fault=error.fault)
            continue
        if not documents:
            empty = Document(file=found.file, text="")
            fault = Fault(file=found.file, line=1, message="there is no definition in it", allowed="a definition")
            yield Source(found=found, document=empty, number=0, fault=fault)
        for number, document in enumerate(documents):
            yield _with_source(Source(found=found, document=document, number=number))
    for file in collector.skipped[:20]:
        sys.stderr.write(f"skipped {file}: it says no schema_version\n")


def _with_source(source: Source) -> Source:
    if f"{_SOURCE_KEY}:" not in source.document.text:
        return source
    try:
        data = yaml.load(source.document.text, file=source.document.file)
    except UnreadableText:
        return source
    specification = data.get("specification") if isinstance(data, dict) else None
    folder = specification.get(_SOURCE_KEY) if isinstance(specification, dict) else None
    if isinstance(folder, str):
        source.packed = source.found.pack(folder)
    return source
