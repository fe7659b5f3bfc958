"""Filters of subscriptions: which events a subscriber wants, as the CloudEvents Subscriptions API (draft) writes them.

A filter is an object with one dialect: `exact`, `prefix` and `suffix` compare attributes with texts (all of those
named must agree), `all` and `any` join filters, `not` turns one round. A subscription has a list of filters, and an
event passes that passes them all. An attribute that the event does not have agrees with nothing. The draft's
CloudEvents SQL is left out: these are decided in a microsecond each, can't fail, and can be indexed.

The index needs to know which types of facts can pass at all, before there is an event. `may_pass` answers with the type
alone, in Kleene's three-valued logic: what depends on another attribute is unknown, and only a certain "no" counts.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from chimera.events.errors import InvalidSubscription

Dialect = Literal["exact", "prefix", "suffix", "all", "any", "not"]
Filter: TypeAlias = dict[str, Any]
Attributes: TypeAlias = Mapping[str, str]

DIALECTS: tuple[Dialect, ...] = get_args(Dialect)
ATTRIBUTES = (
    *("id", "source", "specversion", "type", "subject", "time", "datacontenttype", "dataschema"),
    *("sequence", "tenant", "traceparent", "chimerahops", "correlationid", "causationid", "replyto"),
)
"""What can be asked for: the context attributes of our events."""

_NAME = re.compile(r"[a-z0-9]{1,64}")

MOST_DEPTH = 8
MOST_PARTS = 100
MOST_TEXT = 512


def plain(types: Sequence[str] = (), subjects: Sequence[str] = ()) -> list[Filter]:
    """Filters for events whose type begins with one of `types` and whose subject with one of `subjects`."""
    made: list[Filter] = []
    for name, texts in (("type", types), ("subject", subjects)):
        if texts:
            made.append({"any": [{"prefix": {name: text}} for text in texts]})
    return made


_COMPARE: Mapping[str, Callable[[str, str], bool]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
}


def check(filters: Sequence[Filter], known: Collection[str] | None = ATTRIBUTES) -> None:
    """Raise `InvalidSubscription` where `filters` are not filters, or are larger than what is allowed.

    They may name the attributes `known`; with None any, as events of other sources may have any.
    """
    for parts, (depth, place, item) in enumerate(_walk(filters), start=1):
        if depth > MOST_DEPTH:
            raise _wrong(place, f"is deeper than {MOST_DEPTH} levels")
        if parts > MOST_PARTS:
            raise _wrong(place, f"is one too many: all filters have at most {MOST_PARTS} parts together")
        if not isinstance(item, dict) or len(item) != 1:
            raise _wrong(place, f"must be an object with one of {', '.join(DIALECTS)}")
        ((dialect, value),) = item.items()
        if dialect in _COMPARE:
            _check_texts(f"{place}.{dialect}", value, known)
        elif dialect in ("all", "any"):
            if not isinstance(value, list) or not value:
                raise _wrong(f"{place}.{dialect}", "must be a list of one filter or more")
        elif dialect != "not":
            raise _wrong(place, f"has the unknown dialect {str(dialect)[:50]!r}; known: {', '.join(DIALECTS)}")


def passes(filters: Sequence[Filter], attributes: Attributes) -> bool:
    """Whether an event with `attributes` passes all of `filters`, which were checked."""
    return all(_passes(one, attributes) for one in filters)


def may_pass(filters: Sequence[Filter], type_: str) -> bool:
    """Whether an event of this type can pass; wrong only in that it may say yes to one that never does."""
    return all(_possible(one, type_) is not False for one in filters)


def demanded(filters: Sequence[Filter], name: str) -> str | None:
    """The one value that the attribute `name` must have for an event to pass, where the filters say so plainly."""
    for one in filters:
        ((dialect, value),) = one.items()
        found = value.get(name) if dialect == "exact" else demanded(value, name) if dialect == "all" else None
        if found is not None:
            return str(found)
    return None


def _passes(one: Filter, attributes: Attributes) -> bool:
    ((dialect, value),) = one.items()
    if dialect == "all":
        return all(_passes(item, attributes) for item in value)
    if dialect == "any":
        return any(_passes(item, attributes) for item in value)
    if dialect == "not":
        return not _passes(value, attributes)
    agrees = _COMPARE[dialect]
    return all(name in attributes and agrees(attributes[name], text) for name, text in value.items())


def _possible(one: Filter, type_: str) -> bool | None:
    ((dialect, value),) = one.items()
    if dialect == "not":
        inner = _possible(value, type_)
        return None if inner is None else not inner
    if dialect in ("all", "any"):
        found = [_possible(item, type_) for item in value]
        decides = dialect == "any"
        if decides in found:
            return decides
        return None if None in found else not decides
    if "type" in value and not _COMPARE[dialect](type_, value["type"]):
        return False
    return True if set(value) == {"type"} else None


def _walk(filters: Sequence[Filter]) -> Iterator[tuple[int, str, Any]]:
    """Every filter with its depth (1: outermost) and its place, a holder before what it holds."""
    waiting = [(1, f"filters[{number}]", item) for number, item in enumerate(filters)]
    waiting.reverse()
    while waiting:
        depth, place, item = waiting.pop()
        yield depth, place, item
        ((dialect, value),) = item.items()
        if dialect == "not":
            waiting.append((depth + 1, f"{place}.not", value))
        elif dialect in ("all", "any"):
            inner = [(depth + 1, f"{place}.{dialect}[{number}]", one) for number, one in enumerate(value)]
            waiting.extend(reversed(inner))


def _check_texts(place: str, value: Any, known: Collection[str] | None) -> None:
    if not isinstance(value, dict) or not value:
        raise _wrong(place, 'must be an object of attributes and texts, such as {"type": "chimera.agent."}')
    for name, text in value.items():
        if known is None:
            if not isinstance(name, str) or _NAME.fullmatch(name) is None:
                raise _wrong(place, f"names {str(name)[:50]!r}; attributes are small letters and digits")
        elif name not in known:
            raise _wrong(place, f"names {str(name)[:50]!r}, which events don't have; known: {', '.join(known)}")
        if not isinstance(text, str) or not 0 < len(text) <= MOST_TEXT:
            raise _wrong(f"{place}.{name}", f"must be a text of 1 to {MOST_TEXT} characters")


def _wrong(place: str, what: str) -> InvalidSubscription:
    return InvalidSubscription(f"{place} {what}", next_step="see the filters of the CloudEvents Subscriptions API")
