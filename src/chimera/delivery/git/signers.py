"""Who may sign: a file in the form of OpenSSH's allowed signers, read into persons.

A line is names, options, and one public key. Lines that share a name are one person's, so that nobody counts twice by
having two keys. A person is never a pattern: names with wildcards are refused, and so are certificate authorities.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chimera.delivery.git.errors import InvalidProtection

KEY_TYPES = frozenset({"ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"})
NAMESPACE = "git"
_LINE = re.compile(
    r'^(?P<names>\S+)\s+(?:(?P<options>(?:[^\s"]|"[^"]*")+)\s+)?(?P<type>[a-z0-9@.-]+)\s+(?P<key>[A-Za-z0-9+/=]+)(?:\s.*)?$'
)
_OPTION = re.compile(r'([a-z-]+)(?:="([^"]*)")?(?:,|$)', re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Somebody who may sign, by all names that the file gives them."""

    names: frozenset[str]

    def __str__(self) -> str:
        """A name for people."""
        return min(self.names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Signers:
    """Persons by their public keys (the key's wire form)."""

    keys: Mapping[bytes, Person]

    def named(self, name: str) -> Person | None:
        """Who has this name."""
        return next((person for person in self.keys.values() if name.lower() in person.names), None)


def read_signers(text: str, *, file: str) -> Signers:
    """The signers in `text`; raises `InvalidProtection` with the line that is wrong."""
    lines: list[tuple[frozenset[str], bytes]] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        found = _LINE.match(stripped)
        if found is None or found["type"] not in KEY_TYPES:
            raise _invalid(file, number, f"it is not names and a public key of {', '.join(sorted(KEY_TYPES))}")
        if not _may_sign_git(found["options"], file, number):
            continue
        names = frozenset(name.lower() for name in found["names"].split(",") if name)
        if not names or any(set('*?!"') & set(name) for name in names):
            raise _invalid(file, number, "a name with a wildcard, or a negated one, is nobody in particular")
        lines.append((names, _key(found["type"], found["key"], file, number)))
    return Signers(keys=_persons(lines, file))


def _may_sign_git(options: str | None, file: str, number: int) -> bool:
    for name, value in _OPTION.findall(options or ""):
        if name.lower() != "namespaces":
            raise _invalid(
                file, number, f"the option {name!r} is not supported; take the line out when the key is not to count"
            )
        if NAMESPACE not in value.split(","):
            return False
    return True


def _key(kind: str, text: str, file: str, number: int) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise _invalid(file, number, "the key is not base64") from None
    if raw[: 4 + len(kind)] != len(kind).to_bytes(4, "big") + kind.encode():
        raise _invalid(file, number, f"the key is not of the type {kind} that it is said to be")
    return raw


def _persons(lines: Sequence[tuple[frozenset[str], bytes]], file: str) -> dict[bytes, Person]:
    groups: list[set[str]] = []
    for names, _ in lines:
        mine = [group for group in groups if group & names]
        groups = [group for group in groups if not group & names] + [set(names).union(*mine)]
    found: dict[bytes, Person] = {}
    for names, key in lines:
        person = Person(names=frozenset(next(group for group in groups if group & names)))
        if found.setdefault(key, person) != person:
            raise InvalidProtection(
                f"{file}: {found[key]} and {person} have the same key", next_step="give each person a key of their own"
            )
    return found


def _invalid(file: str, number: int, text: str) -> InvalidProtection:
    return InvalidProtection(f"{file}:{number}: {text}", next_step="see ALLOWED SIGNERS in ssh-keygen(1)")
