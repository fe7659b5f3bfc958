"""The nearest of many short texts, by the rare words they share (tf-idf over an inverted index).

Only a text's rarest words are looked up: common ones cost most of the time and say little. With 3,658 occupations and
13,939 skills that is about a second of plain Python, so that a builder needs nothing but the standard library.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from math import log, sqrt

from roster.words import stem

WORDS_LOOKED_UP = 12


class Nearest:
    """Finds the nearest of the texts that it was given, each as its content words."""

    def __init__(self, texts: Sequence[Iterable[str]]) -> None:
        """Index `texts`; answers name them by their position."""
        stems = [set(map(stem, text)) for text in texts]
        count = Counter(one for text in stems for one in text)
        self._weight = {one: log(len(texts) / number) for one, number in count.items()}
        norms = [sqrt(sum(self._weight[one] ** 2 for one in text)) or 1.0 for text in stems]
        self._index: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        for position, text in enumerate(stems):
            for one in sorted(text):
                self._index[one].append((position, self._weight[one] / norms[position]))

    def find(self, text: Iterable[str], *, count: int = 1) -> list[tuple[int, float]]:
        """The nearest texts as (position, nearness), nearest first; fewer where fewer share a word."""
        known = sorted({one for one in map(stem, text) if one in self._weight}, key=lambda one: (-self._weight[one], one))
        found: dict[int, float] = {}
        for one in known[:WORDS_LOOKED_UP]:
            weight = self._weight[one]
            for position, share in self._index[one]:
                found[position] = found.get(position, 0.0) + weight * share
        return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:count]

    def rarity(self, word: str) -> float:
        """How rare a word is among the texts; a word that none holds is rarest."""
        return self._weight.get(stem(word), max(self._weight.values(), default=0.0))
