"""Where the names of an ESCO entry end and its definition begins.

The package gives each entry as one text: the preferred name, other names and the definition run together, with nothing
to mark the borders. The definition is taken from the first capitalised sentence. Names hold capitals too (`use
Microsoft Access`, `EU law`), so a capital alone proves nothing. A word opens the definition when it is capitalised, a
name can end before it, a sentence can go on after it, and it is capital only because it opens a sentence:

- an article or another determiner (`The`, `A`, `These` …), whatever stands before it; or
- a word that this classification also writes in small letters, and not rarely so (`Manage`, never `Microsoft`), after
  a word that isn't capitalised in the same way (so `City` opens nothing in `Smart City consultant`).

Where none does, a capitalised word between small ones will do if the names hold it in another form (`Milliners design`
after `milliner`).

International occupation groups are written `Title  Definition`, with two spaces, and are split there. A text without
any such word is kept whole as the definition: the split has failed, which the builder counts and reports.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from roster.words import word_set

DETERMINERS = word_set("A An The This That These Those All Any Each Every Both Various Some")
NEVER_LAST = word_set("a an and as at by for from in into of on or per the to with")
"""No name ends in one of these, so no definition begins after one (`English for Speakers of Other Languages`)."""
FEWEST_WORDS = 3
"""A definition has at least this many words; what is shorter is a name that begins with a capital."""
RARELY = 0.1
"""A word of ten capitals to one small letter or more has its capital of its own."""

_TITLE_CASE = re.compile(r"[\"'(\u2018\u201c]?([A-ZÀ-Þ][a-zß-ÿ]+(?:[-/][a-zß-ÿ]+)*)[,:;]?$")
_GROUP = re.compile(r"([A-Z][^.]{2,150}?)\s{2,}(?=[A-Z])")
_SENTENCE_END = re.compile(r"[a-z)]{3}\.\s")
_WORD = re.compile(r"[A-Za-zÀ-ÿ]+")
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\ufeff\u00ad"))
_STEM = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """An entry's text in two. `found` is False where no border was found and `definition` holds the whole text."""

    names: str
    definition: str
    found: bool


class Splitter:
    """Splits entries by what all texts of the classification together say about capital letters."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Count how often each word is written small, and how often with a capital."""
        count: Counter[str] = Counter()
        for text in texts:
            count.update(_WORD.findall(text))
        self._count = count

    def split(self, text: str) -> Split:
        """Split one entry's text."""
        text = text.translate(_INVISIBLE).strip()
        if group := _GROUP.match(text):
            return Split(names=_tidy(group[1]), definition=_tidy(text[group.end() :]), found=True)
        words = text.split()
        for opens in (self._opens, self._may_open):
            for index in range(1, len(words) - FEWEST_WORDS + 1):
                if words[index - 1] not in NEVER_LAST and opens(words, index):
                    names = " ".join(words[:index])
                    if _SENTENCE_END.search(names + " "):
                        break  # A whole sentence was passed over: its first word is the better guess.
                    return Split(names=names, definition=" ".join(words[index:]), found=True)
        return Split(names="", definition=_tidy(text), found=False)

    def _opens(self, words: list[str], index: int) -> bool:
        following = words[index + 1][0]
        if _bare(words[index]) in DETERMINERS:
            return not following.isupper() or _bare(words[index]) not in ("A", "All")
        return self._ordinary(words[index]) and not self._ordinary(words[index - 1]) and not following.isupper()

    def _may_open(self, words: list[str], index: int) -> bool:
        """The second guess: a rare word, capitalised between small ones, that the names hold in another form."""
        word = words[index]
        if _TITLE_CASE.match(word) is None or words[index + 1][0].isupper() or words[index - 1][0].isupper():
            return False
        stem = _bare(word).lower()[:_STEM]
        return any(other[:_STEM] == stem for other in words[:index])

    def _ordinary(self, word: str) -> bool:
        """Whether `word` has its capital from its place and not of its own."""
        match = _TITLE_CASE.match(word)
        if match is None:
            return False
        first = _WORD.findall(match[1])[0].lower()
        return self._count[first] > max(1, RARELY * self._count[first.capitalize()])


def _bare(word: str) -> str:
    return word.strip("\"'(\u2018\u201c,:;")


def _tidy(text: str) -> str:
    return " ".join(text.split())
