"""Which texts say nearly the same, found among tens of thousands in one pass over arrays.

A text is a vector of its words: a word counts more the fewer texts hold it (TF-IDF), and each vector has length one.
Two measures say that an agent is one that exists already:

- `similarity`: the cosine of both vectors. What is renamed, put in another order or rewritten in places keeps it high.
- `containment`: how much of the known text's weight stands in the new one. A copy with words around it has a low cosine
  and holds all of the known text.

Both are exact, and still most pairs are never looked at. Words have one order, the rarest first. The head of a text are
its rarest words, as many as it takes until the rest weighs too little to reach the bound alone. Two texts whose heads
share no word can't reach it (prefix filtering: Bayardo, Ma and Srikant, "Scaling up all pairs similarity search", WWW
2007; the bound by the length of the rest is that of Anastasiu and Karypis, "L2AP", ICDE 2014). So only texts are
compared that share a rare word. Where nearly all do, as with a thousand copies of one text, a query costs one pass over
all arrays: a millisecond for 14,000 agents.

MinHash would estimate what is computed here, and has no weights: "audits invoices of suppliers" and "audits invoices of
customers" share three words of four, but the fourth is the one that tells. A language model's vectors would also find
a synonym. The smallest one that is to be had takes 84 MB and eight minutes for 12,000 texts on this kind of machine.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct

Array = np.ndarray[Any, np.dtype[Any]]

FEWEST_WORDS = 8
"""A text of fewer different words isn't judged by containment: any longer text on its matter holds it."""
LEAST_BOUND = 0.5
"""The lowest bound that the index is made for; heads grow as it falls."""
_LEAST_WEIGHT = 0.01
"""A word that all texts have weighs next to nothing, and not nothing: texts of such words alone can be compared too."""
_ROUNDING = 1e-6


class Near(Struct, frozen=True, kw_only=True):
    """A text of the index, by its place, that is near one that was asked about; the two measures, from 0 to 1."""

    place: int
    similarity: float
    containment: float


class Index:
    """Texts, each a list of its telling words, ready to be asked what is near another text."""

    def __init__(self, texts: Sequence[Sequence[str]], *, like: "Index | None" = None) -> None:
        """Weigh all words. With `like`, words weigh what they weigh there: a handful of texts tells no weights."""
        self.size = len(texts)
        self._ids: dict[str, int] = dict(like._ids) if like is not None else {}
        rows, columns, counts = self._counted(texts)
        self._of: int = self.size if like is None else like._of
        texts_with: Array = np.bincount(columns, minlength=len(self._ids))
        if like is not None:
            texts_with = np.zeros(len(self._ids), np.int64)
            texts_with[: len(like._texts_with)] = like._texts_with
        self._texts_with: Array = texts_with
        self._weights = np.maximum(_LEAST_WEIGHT, np.log((self._of + 1) / np.maximum(texts_with, 1)))
        # The rarest first; the number of a word, which is the order of its first mention, breaks ties.
        self._rank = np.empty(len(texts_with), np.int64)
        self._rank[np.argsort(texts_with, kind="stable")] = np.arange(len(texts_with))
        order = np.lexsort((self._rank[columns], rows))
        rows, columns = rows[order], columns[order]
        values = (1.0 + np.log(counts[order])) * self._weights[columns]
        lengths = np.sqrt(np.bincount(rows, weights=values**2, minlength=self.size))
        self._values = values / lengths[rows]
        self._columns = columns
        self._bounds = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=self.size))))
        squares = self._values**2
        total = np.concatenate(([0.0], np.cumsum(squares)))
        # What a text weighs from each word on. A word is in the head while that can reach the lowest bound.
        self._rest = 1.0 - (total[:-1] - total[self._bounds[:-1]][rows])
        self._postings(rows)

    def _counted(self, texts: Sequence[Sequence[str]]) -> tuple[Array, Array, Array]:
        rows: list[int] = []
        columns: list[int] = []
        counts: list[int] = []
        ids = self._ids
        for row, text in enumerate(texts):
            for word, count in Counter(text).items():
                rows.append(row)
                columns.append(ids.setdefault(word, len(ids)))
                counts.append(count)
        return np.array(rows, np.int64), np.array(columns, np.int64), np.array(counts, np.float64)

    def _postings(self, rows: Array) -> None:
        """For each word the texts that have it in their head."""
        heads = np.nonzero(self._rest >= LEAST_BOUND**2 - _ROUNDING)[0]
        heads = heads[np.argsort(self._columns[heads], kind="stable")]
        self._posted, self._posted_rest = rows[heads], self._rest[heads]
        counts = np.bincount(self._columns[heads], minlength=len(self._ids))
        self._posting_bounds = np.concatenate(([0], np.cumsum(counts)))

    def weight(self, word: str) -> float:
        """What a word weighs in these texts: the more, the fewer have it."""
        column = self._ids.get(word)
        return max(_LEAST_WEIGHT, math.log(self._of + 1)) if column is None else float(self._weights[column])

    def near(self, text: Sequence[str], *, similarity: float, containment: float) -> list[Near]:
        """The texts that reach either bound beside `text`, the nearest first. Bounds below 0.5 count as 0.5."""
        return self.nearest([text], similarity=similarity, containment=containment)[0]

    def nearest(self, texts: Sequence[Sequence[str]], *, similarity: float, containment: float) -> list[list[Near]]:
        """The same for many texts at once."""
        if not self.size or not len(self._columns):
            return [[] for _ in texts]
        dense = np.zeros(len(self._ids))
        bounds = max(similarity, LEAST_BOUND), max(containment, LEAST_BOUND)
        return [self._near(text, dense, *bounds) for text in texts]

    def _near(self, text: Sequence[str], dense: Array, similarity: float, containment: float) -> list[Near]:
        columns, values = self._vector(text)
        candidates = self._candidates(columns, min(similarity**2, containment) - _ROUNDING)
        if not len(candidates):
            return []
        dense[columns] = values
        starts = self._bounds[candidates]
        lengths = self._bounds[candidates + 1] - starts
        offsets = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        taken = np.repeat(starts - offsets, lengths) + np.arange(lengths.sum())
        theirs, ours = self._values[taken], dense[self._columns[taken]]
        cosines = np.add.reduceat(ours * theirs, offsets)
        held = np.add.reduceat(np.where(ours > 0, theirs**2, 0.0), offsets)
        dense[columns] = 0.0
        judged = (held >= containment - _ROUNDING) & (lengths >= FEWEST_WORDS)
        found = np.nonzero((cosines >= similarity - _ROUNDING) | judged)[0]
        near = [
            Near(
                place=int(candidates[one]),
                similarity=round(min(1.0, float(cosines[one])), 4),
                containment=round(min(1.0, float(held[one])), 4),
            )
            for one in found
        ]
        return sorted(near, key=lambda one: (-max(one.similarity, one.containment), one.place))

    def _vector(self, text: Sequence[str]) -> tuple[Array, Array]:
        """The known words of a text and their weights; those that nobody has count for its length alone."""
        square = 0.0
        columns: list[int] = []
        values: list[float] = []
        for word, count in Counter(text).items():
            column = self._ids.get(word)
            value = (1.0 + math.log(count)) * self.weight(word)
            square += value * value
            if column is not None:
                columns.append(column)
                values.append(value)
        length = math.sqrt(square) or 1.0
        return np.array(columns, np.int64), np.array(values) / length

    def _candidates(self, columns: Array, least: float) -> Array:
        """Texts with a word of `columns` from which on they weigh `least` or more; no other reaches a bound."""
        if not len(columns):
            return np.empty(0, np.int64)
        bounds = self._posting_bounds
        places = [np.arange(bounds[column], bounds[column + 1]) for column in columns]
        joined = np.concatenate(places)
        joined = self._posted[joined[self._posted_rest[joined] >= least]]
        if len(joined) <= self.size:
            return np.unique(joined)
        seen = np.zeros(self.size, bool)
        seen[joined] = True
        return np.nonzero(seen)[0]
