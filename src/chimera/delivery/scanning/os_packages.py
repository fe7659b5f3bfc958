"""Packages of an operating system, from dpkg's and apk's own databases, named as OSV names them.

Advisories of Debian and Alpine speak of source packages, so a package is known by its source where it says one.
"""

import re
from collections.abc import Iterator

from chimera.delivery.scanning.model import Place
from chimera.delivery.scanning.packages import Listed, Package, PackageFault

_VALUE = re.compile(r"^([A-Z_]+)=[\"']?([^\"'\n]*)[\"']?$", re.MULTILINE)
_SOURCE = re.compile(r"^(\S+)(?:\s+\(([^)]+)\))?$")
_FIX = "rebuild the image from a base whose package database is whole"


def ecosystem_of(os_release: str) -> str | None:
    """The ecosystem of a distribution by its `os-release`; None for one whose advisories aren't known here."""
    said = dict(_VALUE.findall(os_release))
    version = said.get("VERSION_ID", "")
    match said.get("ID"):
        case "debian":
            return f"Debian:{version.partition('.')[0]}" if version else None
        case "ubuntu":
            return f"Ubuntu:{version}" + (":LTS" if "LTS" in said.get("VERSION", "") else "") if version else None
        case "alpine":
            return "Alpine:v" + ".".join(version.split(".")[:2]) if version.count(".") >= 1 else None
    return None


def of_dpkg(text: str, ecosystem: str, *, file: str) -> Iterator[Listed]:
    """Installed packages of dpkg's status, or of one of distroless' files."""
    for number, fields in _paragraphs(text):
        name, version, status = (
            fields.get("package"),
            fields.get("version"),
            fields.get("status", "install ok installed"),
        )
        if status.split()[-1:] not in (["installed"], ["half-configured"], ["unpacked"], ["triggers-pending"]):
            continue
        place = Place(file=file, line=number)
        if not name or not version:
            yield PackageFault(message="a paragraph names no package and version", next_step=_FIX, place=place)
            continue
        source = _SOURCE.match(fields.get("source", ""))
        yield Package(
            ecosystem=ecosystem,
            name=source[1] if source else name,
            version=(source[2] if source else None) or version,
            place=place,
        )


def _paragraphs(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    fields: dict[str, str] = {}
    start = 1
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            if fields:
                yield start, fields
            fields = {}
        elif not line[0].isspace():
            if not fields:
                start = number
            key, _, value = line.partition(":")
            fields[key.lower()] = value.strip()
    if fields:
        yield start, fields


def of_apk(text: str, ecosystem: str, *, file: str) -> Iterator[Listed]:
    """Packages of apk's database: `P:` is the name, `V:` the version, `o:` the source."""
    fields: dict[str, str] = {}
    start = 1
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.strip():
            if not fields:
                start = number
            if line[1:2] == ":":
                fields[line[0]] = line[2:].strip()
            continue
        if fields:
            place = Place(file=file, line=start)
            if fields.get("P") and fields.get("V"):
                name = fields.get("o") or fields["P"]
                yield Package(ecosystem=ecosystem, name=name, version=fields["V"], place=place)
            else:
                yield PackageFault(message="an entry names no package and version", next_step=_FIX, place=place)
        fields = {}
