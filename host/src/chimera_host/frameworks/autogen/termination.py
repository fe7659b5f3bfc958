"""The word that ends a chat: whether a text says it, and a text without it. Pure.

A chat ends on the word wherever it stands, since models go on talking after it. It is taken away at the end alone,
where it is a signal: in the middle it belongs to a sentence, which may well be about the word.
"""

import re

_AFTER = "*_.! \t\r\n"
_MARKDOWN = re.compile(r"[*_]+")


def says(text: str, word: str) -> bool:
    """Whether `text` says `word`, as a word of its own."""
    return word in text and re.search(_alone(word), text) is not None


def without(text: str, word: str) -> str:
    """`text` without `word` at its end, however often; a full stop after it and Markdown around it go too."""
    while (shorter := _one_less(text, word)) is not None:
        text = shorter
    return text


def _one_less(text: str, word: str) -> str | None:
    for end in (text.rstrip(), text.rstrip(_AFTER)):
        before = end.removesuffix(word)
        if before == end or (word[:1].isalnum() and before[-1:].isalnum()):
            continue
        marks = _MARKDOWN.match(text, len(end))
        return before.removesuffix(marks[0][::-1] if marks else "").rstrip()
    return None


def _alone(word: str) -> str:
    before = r"(?<![^\W_])" if word[:1].isalnum() else ""
    after = r"(?![^\W_])" if word[-1:].isalnum() else ""
    return f"{before}{re.escape(word)}{after}"
