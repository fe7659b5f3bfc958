"""Trees with marks and conditions as Helm's templates, a line for each thing that is said.

Every value goes through `toJson`, so whatever a user writes stays one value: no quote or colon of his changes the
manifest around it.
"""

import json
from collections.abc import Mapping
from typing import Any

import yaml

from deploy.generator.symbols import ABSENT, CLOSE, EACH, MARK, OPEN, When

Json = Any
STEP = "  "


def document(tree: Json) -> str:
    """One object; where it is under a condition, the condition is around it and its separator."""
    if isinstance(tree, When):
        assert tree.no is ABSENT
        return f"{{{{- if {tree.condition} }}}}\n{document(tree.yes)}{{{{- end }}}}\n"
    return "---\n" + "\n".join(mapping(tree, "")) + "\n"


def mapping(tree: Mapping[str, Json], indent: str) -> list[str]:
    """A mapping's lines."""
    return [line for name, value in tree.items() for line in entry(name, value, indent)]


def entry(name: str, value: Json, indent: str) -> list[str]:
    """The lines of one name and its value."""
    if isinstance(value, When):
        return _conditional(value, lambda one: entry(name, one, indent), indent)
    shown = f"{indent}{scalar(name)}:"
    short = _short(value)
    if short is not None:
        return [f"{shown} {short}"]
    if isinstance(value, Mapping):
        return [shown, *mapping(value, indent + STEP)]
    return [shown, *(line for one in value for line in item(one, indent + STEP))]


def item(value: Json, indent: str) -> list[str]:
    """The lines of one item of a list."""
    if isinstance(value, When):
        return _conditional(value, lambda one: item(one, indent), indent)
    if (expression := _each(value)) is not None:
        lines = item(_replaced(value, expression), indent)
        return [f"{indent}{{{{- range {expression} }}}}", *lines, f"{indent}{{{{- end }}}}"]
    short = _short(value)
    if short is not None:
        return [f"{indent}- {short}"]
    lines = mapping(value, indent + STEP) if isinstance(value, Mapping) else []
    assert lines, f"a list in a list, or nothing: {value!r}"
    if lines[0].lstrip().startswith("{{"):
        return [f"{indent}-", *lines]
    return [f"{indent}- {lines[0].lstrip()}", *lines[1:]]


def _conditional(value: When, lines: Any, indent: str) -> list[str]:
    found = [f"{indent}{{{{- if {value.condition} }}}}", *lines(value.yes)]
    if value.no is not ABSENT:
        found += [f"{indent}{{{{- else }}}}", *lines(value.no)]
    return [*found, f"{indent}{{{{- end }}}}"]


def _short(value: Json) -> str | None:
    """What fits behind a name, or None where it takes lines of its own."""
    if isinstance(value, Mapping):
        if not value:
            return "{}"
        (first, *others) = value
        whole = MARK.fullmatch(first)
        return f"{{{{ {whole[1]} | toJson }}}}" if whole and not others else None
    if isinstance(value, (list, tuple)):
        if not value:
            return "[]"
        only = value[0].yes if isinstance(value[0], When) and value[0].no is ABSENT else value[0]
        if len(value) == 1 and isinstance(only, str) and MARK.fullmatch(only) and _each(only):
            return f"{{{{ {_each(only)} | default list | toJson }}}}"
        rest = [one for one in value if isinstance(one, str) and _whole(one)]
        if rest and rest == [value[-1]]:
            before = " ".join(expression(one) for one in value[:-1])
            more = _whole(value[-1])
            return f"{{{{ concat (list {before}) {more} | toJson }}}}" if before else f"{{{{ {more} | toJson }}}}"
        return None
    return scalar(value)


def _whole(value: str) -> str | None:
    """The expression that is all of a value, but for one that stands for each of many."""
    found = MARK.fullmatch(value)
    return found[1] if found and not found[1].startswith(EACH) and not found[1].startswith(".") else None


def expression(value: str) -> str:
    """A text with marks as an expression."""
    found = MARK.findall(value)
    if not found:
        return json.dumps(value)
    if MARK.fullmatch(value):
        return f"({found[0]})"
    return f"(printf {json.dumps(MARK.sub('%s', value.replace('%', '%%')))} {' '.join(f'({one})' for one in found)})"


def scalar(value: Json) -> str:
    """A value on one line."""
    if not isinstance(value, str):
        return json.dumps(value)
    if OPEN in value or CLOSE in value:
        shown = expression(value)
        return f"{{{{ {shown[1:-1] if shown.startswith('(') else shown} | toJson }}}}"
    if "{{" in value or "\n" in value:
        return json.dumps(value, ensure_ascii=False).replace("{{", '{{ "{{" }}')
    text: str = yaml.safe_dump(value, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _each(value: Json) -> str | None:
    """The list whose items this one stands for."""
    if isinstance(value, str):
        found = MARK.search(value)
        return found[1].removeprefix(EACH) if found and found[1].startswith(EACH) else None
    if isinstance(value, Mapping):
        return next((found for one in value.values() if (found := _each(one)) is not None), None)
    return None


def _replaced(value: Json, expression_: str) -> Json:
    if isinstance(value, str):
        return value.replace(f"{OPEN}{EACH}{expression_}{CLOSE}", f"{OPEN}.{CLOSE}")
    if isinstance(value, Mapping):
        return {name: _replaced(one, expression_) for name, one in value.items()}
    return value
