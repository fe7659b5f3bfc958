"""The nearest of many short texts, by the rare words they share (tf-idf over an inverted index).

Only a text's rarest words are looked up: common ones cost most of the time and say little. With 3,658 occupations and
13,939 skills that is about a second of plain Python, so that a builder needs nothing but the standard library.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from heapq import nlargest
from math import log, sqrt
from operator import itemgetter

from roster.words import stem

WORDS_LOOKED_UP = 8
COMMON = 0.04
"""A word that more than this share of the texts holds isn't looked up, unless a text has no rarer one."""


class Nearest:
    """Finds the nearest of the texts that it was given, each as its content words."""

    def __init__(self, texts: Sequence[Iterable[str]]) -> None:
        """Index `texts`; answers name them by their position."""
        stems = [set(map(stem, text)) for text in texts]
        count = Counter(one for text in stems for one in text)
        self._weight = {one: log(len(texts) / number) for one, number in count.items()}
        self._rarest = max(self._weight.values(), default=0.0)
        self._common = -log(COMMON)
        norms = [sqrt(sum(self._weight[one] ** 2 for one in text)) or 1.0 for text in stems]
        self._index: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        for position, text in enumerate(stems):
            for one in sorted(text):
                self._index[one].append((position, self._weight[one] / norms[position]))

    def find(self, text: Iterable[str], *, count: int = 1) -> list[tuple[int, float]]:
        """The nearest texts as (position, nearness), nearest first; fewer where fewer share a word."""
        weight = self._weight
        known = sorted((-weight[one], one) for one in {*map(stem, text)} if one in weight)[:WORDS_LOOKED_UP]
        rare = [item for item in known if -item[0] >= self._common] or known
        found: dict[int, float] = {}
        for negative, one in rare:
            for position, share in self._index[one]:
                found[position] = found.get(position, 0.0) - negative * share
        return nlargest(count, found.items(), key=itemgetter(1))

    def rarity(self, word: str) -> float:
        """How rare a word is among the texts; a word that none holds is rarest."""
        return self._weight.get(stem(word), self._rarest)
