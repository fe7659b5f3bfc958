"""Versions as each ecosystem orders them: PyPI by PEP 440, npm by semantic versioning, Debian by dpkg, Alpine by apk.

A key sorts as the ecosystem's own tool does. A text that isn't a version there has no key, and whoever asked must say
that it couldn't be judged: guessing an order makes a vulnerable package look mended.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

Key = Any
"""Compares with other keys of its ecosystem, and with nothing else."""

LONGEST = 200
_LOW, _HIGH = (-1,), (2,)

_PEP440 = re.compile(
    r"v?(?:(?P<epoch>[0-9]+)!)?(?P<release>[0-9]+(?:\.[0-9]+)*)"
    r"(?:[-_.]?(?P<pre>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<pre_number>[0-9]+)?)?"
    r"(?P<post>-(?P<post_bare>[0-9]+)|[-_.]?(?:post|rev|r)[-_.]?(?P<post_number>[0-9]+)?)?"
    r"(?P<dev>[-_.]?dev[-_.]?(?P<dev_number>[0-9]+)?)?"
    r"(?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?"
)
_PRE = {"alpha": "a", "a": "a", "beta": "b", "b": "b", "c": "rc", "rc": "rc", "pre": "rc", "preview": "rc"}


def pep440(text: str) -> Key | None:
    """The order of PEP 440."""
    match = _PEP440.fullmatch(text.strip().lower()) if len(text) <= LONGEST and text.isascii() else None
    if match is None:
        return None
    release = [int(part) for part in match["release"].split(".")]
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    dev = int(match["dev_number"] or 0) if match["dev"] else None
    post = int(match["post_bare"] or match["post_number"] or 0) if match["post"] else None
    if match["pre"]:
        pre: tuple[Any, ...] = (1, _PRE[match["pre"]], int(match["pre_number"] or 0))
    else:  # 1.0.dev1 is before 1.0a1, and 1.0 after all of them
        pre = _LOW if dev is not None and post is None else _HIGH
    local = tuple(
        (1, int(part), "") if part.isdigit() else (0, 0, part)
        for part in re.split(r"[-_.]", match["local"] or "")
        if part
    )
    return (
        int(match["epoch"] or 0),
        tuple(release),
        pre,
        -1 if post is None else post,
        _HIGH if dev is None else (1, dev),
        local,
    )


_SEMVER = re.compile(
    r"[v=]?\s*(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(?:-((?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?"
)


def semver(text: str) -> Key | None:
    """The order of semantic versioning 2.0.0; what is built doesn't count."""
    match = _SEMVER.fullmatch(text.strip()) if len(text) <= LONGEST and text.isascii() else None
    if match is None:
        return None
    before = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in (match[4] or "").split(".") if part
    )
    return int(match[1]), int(match[2]), int(match[3]), 0 if match[4] else 1, before


_DEBIAN = re.compile(r"(?:(?P<epoch>[0-9]{1,9}):)?(?P<upstream>[0-9A-Za-z.+~:-]+?)(?:-(?P<revision>[0-9A-Za-z.+~]+))?")


def debian(text: str) -> Key | None:
    """The order of dpkg."""
    match = _DEBIAN.fullmatch(text.strip()) if len(text) <= LONGEST and text.isascii() else None
    if match is None or not match["upstream"][0].isdigit() or (":" in match["upstream"] and not match["epoch"]):
        return None
    return int(match["epoch"] or 0), _dpkg_parts(match["upstream"]), _dpkg_parts(match["revision"] or "0")


def _dpkg_parts(text: str) -> tuple[Any, ...]:
    """Words and numbers in turn, and an empty word at the end, which is after `~` and before everything else."""
    parts: list[Any] = []
    for word, number in re.findall(r"([^0-9]*)([0-9]*)", text):
        if word or number:
            parts += [(*(_dpkg_weight(character) for character in word), 0), int(number or 0)]
    return (*parts, (0,))


def _dpkg_weight(character: str) -> int:
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256


_ALPINE = re.compile(
    r"(?P<digits>[0-9]+(?:\.[0-9]+)*)(?P<letter>[a-z])?(?P<suffixes>(?:_(?:alpha|beta|pre|rc|cvs|svn|git|hg|p)[0-9]*)*)"
    r"(?:~(?P<hash>[0-9a-f]+))?(?:-r(?P<revision>[0-9]+))?"
)
_SUFFIXES = ("alpha", "beta", "pre", "rc", "", "cvs", "svn", "git", "hg", "p")
_DIGIT, _LETTER, _SUFFIX, _NUMBER, _HASH, _REVISION, _END = range(1, 8)


def alpine(text: str) -> Key | None:
    """The order of apk: the same parts are compared, and where they differ in kind the shorter one is before.

    A version that ends is before one that goes on, but for a suffix of something unfinished (`_alpha`, `_rc`).
    """
    match = _ALPINE.fullmatch(text.strip()) if len(text) <= LONGEST and text.isascii() else None
    if match is None:
        return None
    first, *rest = match["digits"].split(".")
    tokens: list[tuple[int, Any]] = [(0, int(first)), *((_DIGIT, part) for part in rest)]
    if match["letter"]:
        tokens.append((_LETTER, match["letter"]))
    for name, number in re.findall(r"_([a-z]+)([0-9]*)", match["suffixes"]):
        tokens.append((_SUFFIX, _SUFFIXES.index(name)))
        if number:
            tokens.append((_NUMBER, int(number)))
    if match["hash"]:
        tokens.append((_HASH, match["hash"]))
    if match["revision"]:
        tokens.append((_REVISION, int(match["revision"])))
    return _AlpineKey((*tokens, (_END, 0)))


def _alpine_order(one: tuple[tuple[int, Any], ...], other: tuple[tuple[int, Any], ...]) -> int:
    for (kind, value), (other_kind, other_value) in zip(one, other, strict=False):
        if kind != other_kind:
            if kind == _SUFFIX and value < _SUFFIXES.index(""):
                return -1
            if other_kind == _SUFFIX and other_value < _SUFFIXES.index(""):
                return 1
            return -1 if kind > other_kind else 1
        if kind == _DIGIT and "0" not in (value[0], other_value[0]):  # as text where one begins with a zero
            value, other_value = int(value), int(other_value)
        if value != other_value:
            return -1 if value < other_value else 1
    return 0


@functools.total_ordering
class _AlpineKey:
    """A version of Alpine, to be compared and hashed."""

    __slots__ = ("tokens",)

    def __init__(self, tokens: tuple[tuple[int, Any], ...]) -> None:
        """Of these parts."""
        self.tokens = tokens

    def __eq__(self, other: object) -> bool:
        """Whether apk takes them as one."""
        return isinstance(other, _AlpineKey) and _alpine_order(self.tokens, other.tokens) == 0

    def __lt__(self, other: "_AlpineKey") -> bool:
        """Whether apk puts it before."""
        return _alpine_order(self.tokens, other.tokens) < 0

    def __hash__(self) -> int:
        """Equal ones have one."""
        return hash(self.tokens[0])


SCHEMES: dict[str, Callable[[str], Key | None]] = {
    "PyPI": pep440,
    "npm": semver,
    "Debian": debian,
    "Ubuntu": debian,
    "Alpine": alpine,
}
"""By the part of an ecosystem's name before the colon, as the OSV schema spells it."""


def scheme(ecosystem: str) -> Callable[[str], Key | None] | None:
    """How an ecosystem (`PyPI`, `Debian:12`) orders versions; None where that isn't known here."""
    return SCHEMES.get(ecosystem.partition(":")[0])


def normal_name(ecosystem: str, name: str) -> str:
    """A package's name in the one way in which it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower() if ecosystem == "PyPI" else name
