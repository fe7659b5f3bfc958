"""Quantities as people write them: CPU, memory, storage, durations and semantic versions.

Each parser takes the text and gives a plain number (millicores, bytes, seconds) or raises `ValueError` with what is
allowed. Units follow Kubernetes: `m` is a thousandth of a core, `Ki`, `Mi` and `Gi` are powers of 1,024.
"""

import re
from dataclasses import dataclass

_BYTES = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

CPU_PATTERN = r"^([0-9]{1,5}m|[0-9]{1,2}(\.[0-9]{1,3})?)$"
BYTES_PATTERN = r"^[0-9]{1,15}(k|M|G|Ki|Mi|Gi)?$"
DURATION_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d)$"
VERSION_PATTERN = (
    r"^(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})"
    r"(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$"
)


def millicores(text: str) -> int:
    """`250m` is 250, `1.5` is 1500."""
    if not re.fullmatch(CPU_PATTERN, text, re.ASCII):
        raise ValueError(f"{text!r} is not an amount of CPU such as 250m or 1.5")
    if text.endswith("m"):
        return int(text[:-1])
    whole, _, part = text.partition(".")
    return int(whole) * 1000 + int((part + "000")[:3])


def size(text: str) -> int:
    """`512Mi` is 536870912."""
    match = re.fullmatch(r"([0-9]{1,15})(k|M|G|Ki|Mi|Gi)?", text, re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 512Mi or 2Gi")
    return int(match[1]) * _BYTES[match[2] or ""]


def seconds(text: str) -> float:
    """`5m` is 300.0, `250ms` is 0.25."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)", text, re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 30s, 5m or 2h")
    return float(match[1]) * _SECONDS[match[2]]


@dataclass(frozen=True, slots=True)
class Version:
    """A semantic version (semver.org 2.0.0); build metadata is kept in `text` and does not order."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...]
    text: str

    def key(self) -> tuple[int, int, int, int, tuple[tuple[int, int, str], ...]]:
        """Sorts versions by precedence: a prerelease before its release, numbers before words."""
        parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.prerelease)
        return self.major, self.minor, self.patch, 0 if self.prerelease else 1, parts


def version(text: str) -> Version:
    """Parse a semantic version."""
    if not re.fullmatch(VERSION_PATTERN, text, re.ASCII):
        raise ValueError(f"{text!r} is not a semantic version such as 1.4.2")
    core, _, _ = text.partition("+")
    numbers, _, prerelease = core.partition("-")
    major, minor, patch = map(int, numbers.split("."))
    return Version(major, minor, patch, tuple(prerelease.split(".")) if prerelease else (), text)
