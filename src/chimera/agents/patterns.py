"""Regular expressions that a definition may hold: ones that can't take exponential time.

Python's `re` tries alternatives again and again, so a repetition within a repetition (`(a+)+`) or a repeated choice
(`(a|ab)*`) can hang a host on thirty characters of a model's answer. Such expressions are refused, and references back
to a group with them. The check reads the expression's characters; it may refuse a harmless one, never lets a nested
repetition through, and says what to write instead.
"""

import re
from collections.abc import Iterator

_QUANTIFIER = re.compile(r"[*+]|\{(\d*)(,?)(\d*)\}")
_GROUP_START = re.compile(r"\(\?(?:P<\w+>|[:=!]|<[=!]|[aiLmsux-]+:|[aiLmsux-]+\)|P=\w+\)|#[^)]*\))")
_SET_IN_SET = re.compile(r"\^?(?:\[|.*(?:--|&&|~~|\|\|))", re.DOTALL)
_MOST_REPEATED = 10
"""A group that is repeated at most so often counts as written out, not as repeated."""


def pattern_fault(text: str) -> str | None:
    """What is wrong with a regular expression, or None."""
    if any(_SET_IN_SET.match(inner) for inner in _classes(text)):
        return "seems to hold a set within a set; write a backslash before [, -, &, ~ or |"
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        return f"not a regular expression: {error}"
    if re.search(r"(?<!\\)(?:\\\\)*\\[1-9]|\(\?P=", text) or "(?(" in text:
        return "refers back to a group, which can take for ever"
    if re.search(r"\(\?[aiLmsu]*x", text):
        return "is written in verbose mode; write it without blanks and comments"
    return next(_nested(text), None)


def _classes(text: str) -> Iterator[str]:
    """The inside of every character class, of any text."""
    position = 0
    while position < len(text):
        if text[position] == "\\":
            position += 2
        elif text[position] == "[":
            end = _class_end(text, position)
            yield text[position + 1 : end - 1]
            position = end
        else:
            position += 1


def _nested(text: str) -> Iterator[str]:
    """Walks the characters with a stack of open groups, each marked once it holds a repetition or a choice."""
    marked = [False]
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 2
        elif character == "[":
            position = _class_end(text, position)
        elif character == "(":
            match = _GROUP_START.match(text, position)
            position = match.end() if match else position + 1
            if match is None or not match[0].endswith(")"):
                marked.append(False)
            continue
        elif character == "|":
            marked[-1] = True
            position += 1
            continue
        elif character == ")":
            inner = marked.pop()
            position, repeated = _quantifier(text, position + 1)
            if inner and repeated:
                yield "repeats a part that repeats or chooses itself, which can take for ever"
            marked[-1] = marked[-1] or inner or repeated
            continue
        else:
            position += 1
        position, repeated = _quantifier(text, position)
        marked[-1] = marked[-1] or repeated


def _quantifier(text: str, position: int) -> tuple[int, bool]:
    """The end of a quantifier at `position`, and whether it repeats without a small bound."""
    match = _QUANTIFIER.match(text, position)
    if match is None:
        return (position + 1, False) if text[position : position + 1] == "?" else (position, False)
    repeated = True
    if match[0][0] == "{":
        most = match[3] if match[2] else match[1]
        repeated = most == "" or int(most) > _MOST_REPEATED
    end = match.end()
    return (end + 1 if text[end : end + 1] in ("?", "+") else end), repeated


def _class_end(text: str, position: int) -> int:
    """The position after the `]` of a character class."""
    position += 2 if text[position + 1 : position + 2] == "^" else 1
    if text[position : position + 1] == "]":
        position += 1
    while position < len(text) and text[position] != "]":
        position += 2 if text[position] == "\\" else 1
    return position + 1
