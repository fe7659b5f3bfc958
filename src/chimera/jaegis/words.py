"""The words of a text that say what it is about, in one form each: what texts of agents are compared by.

Small letters; no words that stand in every English text; common endings taken off, so that `audits` and `auditing` are
one word. That is enough to compare texts of one trade. It isn't grammar: two words that merely look alike may become
one, and a synonym stays another word.
"""

import re
import sys

_WORD = re.compile(r"[^\W_][\w+#]*")
_STOP = frozenset(
    word
    for line in (
        "a an and are as at be been but by can do does for from has have if in into is it its may not of on or other",
        "per so such than that the their them then there these they this those to was were what when where which while",
        "who will with you your also any all each",
    )
    for word in line.split()
)
_ENDINGS = (("ies", "y"), ("ing", ""), ("es", ""), ("ed", ""), ("s", ""))
_SHORTEST = 4
"""Letters that an ending leaves at least."""


def words(text: str) -> list[str]:
    """All words of a text, in small letters and in their order."""
    return _WORD.findall(text.lower())


def telling(text: str) -> list[str]:
    """The words that say what a text is about, each in its one form, in their order.

    The same word is one object, however many texts hold it: thousands of agents' texts are kept, of a few words.
    """
    return [sys.intern(_stem(word)) for word in words(text) if word not in _STOP]


def _stem(word: str) -> str:
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= _SHORTEST:
            word = word[: -len(ending)] + instead
            break
    return word[:-1] if word.endswith("e") and len(word) > _SHORTEST else word
