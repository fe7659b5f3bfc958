"""Secrets in text: credentials by their form, passwords by what they are assigned to, and both inside base64.

Only what can be used by whoever reads it is a finding. References (`secret:name`, `env:NAME`, `${NAME}`), placeholders
(`<key>`, `changeme`, `xxxx`), hashes (`sha256:…`) and the published examples of vendors' pages are none, and a password
must look like one: long enough, of several kinds of characters. There is no rule for "a random string" without a name
beside it: digests, ids and test data would drown what counts.

Text is cut into lines of at most `LONGEST_LINE` characters with an overlap, so that a minified file costs no more than
any other. A secret is told by its first characters and its length.
"""

import base64
import binascii
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from chimera.delivery.scanning.model import Finding, Place, Severity, found
from chimera.delivery.scanning.secret_patterns import Form, forms_in, matches

LONGEST_LINE = 20_000
OVERLAP = 500
MOST_IN_A_FILE = 200
"""Findings of one file; a file with more is one to remove, not to read."""
MAX_DEPTH = 200
"""More than a definition may have (`chimera.agents.yaml`)."""

NEXT_STEP = (
    "revoke it where it was issued, since it stays in the history; then keep the new one outside and name it "
    "(`secret:NAME` in a definition)"
)

_NAMES = (
    r"passwords?|passwd|passphrase|pwd|secrets?|tokens?|api[_-]?keys?|apikeys?|access[_-]?keys?|auth[_-]?keys?|"
    r"private[_-]?keys?|client[_-]?secrets?|encryption[_-]?keys?|signing[_-]?keys?|credentials?|bearer"
)
_GAP = r"\s{1,8}"
"""Between words. Gaps without a bound beside each other take a line of blanks apart in as many ways as it is long."""
_KEY_WORD = re.compile(r"(?i)pass|pwd|secret|token|key|credential|bearer|pin|login")
_LONG_RUN = re.compile(r"[A-Za-z0-9+/_-]{24}")
_NAME = re.compile(rf"(?i)(?:^|[_.\-\s\"'\[])(?:{_NAMES})(?:[_-](?:value|prod|live|default|id)?)?$")
_ASSIGNED = re.compile(
    rf"(?i)(?<![\w.\-])(?P<key>[\w.\-]{{0,100}}?(?:{_NAMES})[\w\-]{{0,20}})[\"'\]]{{0,2}}\s*(?::=|=>|=|:)\s*"
    r"(?:(?P<quote>[\"'`])(?P<quoted>[^\"'`\r\n]{6,300})(?P=quote)|(?P<bare>[^\s\"'`,;(){}\[\]<>#]{8,300})(?=\s*(?:[,;#]|$)))"
)
_SAID = re.compile(
    rf"(?i)\b(?P<key>{_NAMES}|pin|login)\b(?:{_GAP}(?:for|of|to){_GAP}[\w .-]{{1,40}}?)?{_GAP}(?:is|are)"
    r"(?:\s{0,8}:)?\s{0,8}(?P<quote>[\"'`]?)(?P<value>[^\s\"'`]{6,100})"
)
_URL = re.compile(
    r"(?i)\b[a-z][a-z0-9+.-]{1,20}://(?P<user>[^\s/:@\"'<>{}$]{0,100}):(?P<secret>[^\s/@\"'<>]{3,200})@[\w.\[-]"
)
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_-]{24,8000}={0,2}(?![A-Za-z0-9+/_=-])")
_REFERENCE = re.compile(
    r"(?i)^(?:secret:|env:|file:|vault:|ref:|\$|\{\{|%\(|<|\[|\.\.\.)|^\{[\w.-]*\}$|\$\{|\{\{|\{[a-z_][\w-]*\}|"
    r"^(?:os\.|process\.env|getenv|config[.\[]|settings[.\[]|self\.|this\.|request[.\[]|args\.|ctx\.|context[.\[]|"
    r"str$|bytes$|none$|null$|true$|false$|undefined$|optional|callable)"
)
_PLACEHOLDER = re.compile(
    r"(?i)change.?me|example|placeholder|dummy|sample|your[_\- ]|my[_\-](?:secret|password|token|key)|redacted|"
    r"insert|replace|fake|not.?a.?(?:real|secret)|todo|test(?:ing)?[_-]?(?:key|token|secret|password)?$|"
    r"^(?:x+|\*+|\.+|-+|_+|0+|1234\w*|abcd\w*|password\d?|secret|token|foobar|hunter2?)$|x{6,}|\*{4,}|\.{3,}"
)
_HASH = re.compile(r"(?i)^(?:sha(?:1|224|256|384|512)[:-]|md5[:-]|\$2[aby]\$|\$argon2|pbkdf2|urn:|https?://|/|\./)")
_IDENTIFIER = re.compile(r"^[a-z][a-z]*(?:[_.-][a-z]+)*$|^[A-Z][A-Z]*(?:_[A-Z]+)*$|^(?:[a-z]+[A-Z]?[a-z]*)(?:\.\w+)+$")
_CALL = re.compile(r"^[A-Za-z_][\w.]*\(")


def scan_text(text: str, *, file: str = "", agent: str | None = None, first_line: int = 0) -> list[Finding]:
    """Secrets in a text, each with its line."""
    findings: dict[str, Finding] = {}
    forms = forms_in(text)
    for number, line in _lines(text):
        if not _worth(line, forms):
            continue
        place = Place(file=file, line=number + first_line)
        for one in _in_line(line, forms, place, agent):
            findings.setdefault(one.fingerprint, one)
        if len(findings) >= MOST_IN_A_FILE:
            break
    return list(findings.values())


def scan_value(data: Any, *, file: str = "", agent: str | None = None) -> list[Finding]:
    """Secrets in a definition's values, each with its field; a key's name counts as what its value is assigned to."""
    findings: dict[str, Finding] = {}
    texts = list(strings(data))
    forms = forms_in("\n".join(text for _, _, text in texts))
    for path, key, text in texts:
        named = key and _KEY_WORD.search(key) and _NAME.search(key)
        if not (named or forms or "://" in text or len(text) >= 24 or _KEY_WORD.search(text)):
            continue
        place = Place(file=file, field=path)
        for _, line in _lines(text):
            for one in _in_line(line, forms, place, agent) if _worth(line, forms) else ():
                findings.setdefault(one.fingerprint, one)
        if named and _secretive(text, key):
            one = _assigned(key, text, place, agent)
            if not any(other.place == place for other in findings.values()):
                findings.setdefault(one.fingerprint, one)
    return list(findings.values())


def strings(data: Any, path: str = "", key: str = "", depth: int = 0) -> Iterator[tuple[str, str, str]]:
    """Every text in `data`: its path (`tools[0].name`), the key it stands under, and itself."""
    if isinstance(data, str):
        yield path, key, data
    elif depth > MAX_DEPTH:
        return
    elif isinstance(data, dict):
        for name, value in data.items():
            inner = f"{path}.{name}" if path else str(name)
            if isinstance(name, str):
                yield inner, "", name
            yield from strings(value, inner, str(name), depth + 1)
    elif isinstance(data, (list, tuple)):
        for index, value in enumerate(data):
            yield from strings(value, f"{path}[{index}]", key, depth + 1)


def text_of(data: bytes) -> str | None:
    """Bytes as text where they are text: UTF-8, or UTF-16 with its mark; None where they aren't."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    if b"\0" in data[:8192]:
        return None
    return data.decode("utf-8", "replace")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) <= LONGEST_LINE:
            if len(line) >= 8:
                yield number, line
            continue
        for start in range(0, len(line), LONGEST_LINE - OVERLAP):
            yield number, line[start : start + LONGEST_LINE]


def _worth(line: str, forms: tuple[Form, ...]) -> bool:
    """Whether anything in a line can be a secret; most lines are done with here."""
    return bool(forms) or "://" in line or _KEY_WORD.search(line) is not None or _LONG_RUN.search(line) is not None


def _in_line(
    line: str, forms: tuple[Form, ...], place: Place, agent: str | None, *, wrapped: bool = False
) -> Iterator[Finding]:
    taken: list[str] = []
    for form, secret in matches(line, forms):
        if is_placeholder(secret):
            continue
        taken.append(secret)
        yield _finding(form.rule, form.what, secret, place, agent, "critical", wrapped=wrapped)
    for match in _URL.finditer(line) if "://" in line else ():
        secret = match["secret"]
        if not is_placeholder(secret) and not _REFERENCE.search(secret) and not _inside(secret, taken):
            taken.append(secret)
            yield _finding(
                "url-password", "a password in an address", secret, place, agent, "critical", wrapped=wrapped
            )
    named = _KEY_WORD.search(line) is not None
    for match in _ASSIGNED.finditer(line) if named else ():
        secret = match["quoted"] or match["bare"]
        if not _inside(secret, taken) and _secretive(secret, match["key"], bare=match["bare"] is not None):
            taken.append(secret)
            yield _assigned(match["key"], secret, place, agent)
    for match in _SAID.finditer(line) if named else ():
        secret = match["value"].rstrip(".,;!?)")
        if not _inside(secret, taken) and _secretive(secret, match["key"], bare=not match["quote"], said=True):
            taken.append(secret)
            yield _finding("said", f"a {match['key'].lower()} that is told in words", secret, place, agent, "high")
    if not wrapped:
        for match in _BASE64.finditer(line):
            if not _inside(match[0], taken) and (inner := _unwrapped(match[0])) is not None:
                yield from _in_line(inner, forms_in(inner), place, agent, wrapped=True)


def _unwrapped(text: str) -> str | None:
    """What base64 holds, where that is text."""
    body = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (ValueError, binascii.Error):
        return None
    if not data.isascii():
        return None
    inner = data.decode("ascii")
    return inner if all(character.isprintable() or character in "\r\n\t" for character in inner) else None


def _secretive(text: str, key: str, *, bare: bool = False, said: bool = False) -> bool:
    """Whether what is assigned to `key` looks like a credential of somebody."""
    text = text.strip()
    if len(text) < 6 or len(text) > 300 or any(character.isspace() for character in text):
        return False
    if is_placeholder(text) or _REFERENCE.search(text) or _HASH.match(text) or _CALL.match(text):
        return False
    if _IDENTIFIER.match(text):
        return False
    digits, letters = any(c.isdigit() for c in text), any(c.isalpha() for c in text)
    marks = any(not c.isalnum() and c not in "_-." for c in text)
    if not letters or not (digits or marks):
        return False
    human = re.search(r"(?i)pass|pwd|pin|login", key) is not None
    if re.search(r"(?i)(?:limit|count|max|min|per|length|size|budget|ttl|expir|name|path|file|url|type|field)", key):
        return False
    if (bare or said or not human) and not digits:
        return False
    if human:
        return True
    return len(text) >= 12 and entropy(text) >= 3.0


def is_placeholder(text: str) -> bool:
    """Whether somebody wrote it to be replaced: a published example, or a word that says so."""
    return _PLACEHOLDER.search(text) is not None


def entropy(text: str) -> float:
    """Bits for each character, by Shannon."""
    length = len(text)
    return -sum(count / length * math.log2(count / length) for count in Counter(text).values()) if length else 0.0


def shown(secret: str) -> str:
    """A secret as a finding may tell it."""
    return f"{secret[:4]}… ({len(secret)} characters)" if len(secret) > 8 else f"({len(secret)} characters)"


def _inside(secret: str, taken: Sequence[str]) -> bool:
    return any(secret in one or one in secret for one in taken)


def _assigned(key: str, secret: str, place: Place, agent: str | None) -> Finding:
    return _finding("assigned", f"a value of {key.strip()[:60]!r}", secret, place, agent, "high")


def _finding(
    rule: str, what: str, secret: str, place: Place, agent: str | None, severity: Severity, *, wrapped: bool = False
) -> Finding:
    told = "in base64" if wrapped else ""
    return found(
        "secrets",
        rule,
        severity,
        " ".join(part for part in (what, told, "stands here:", shown(secret)) if part),
        next_step=NEXT_STEP,
        place=place,
        agent=agent,
        secret=hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest(),
    )
