"""The index finds exactly what comparing every pair finds, and what planted copies are."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from chimera.jaegis.duplicates import FEWEST_WORDS, Index

WORDS = [f"w{number}" for number in range(30)]
TEXT = st.lists(st.sampled_from(WORDS), max_size=15)
TEXTS = st.lists(TEXT, max_size=12)
BOUND = st.floats(0.5, 1.0)


def slowly(texts: list[list[str]], asked: list[str]) -> list[tuple[float, float]]:
    """Similarity and containment of every text, from the definitions, without arrays and without pruning."""
    size = len(texts)
    known = Counter(word for text in texts for word in set(text))

    def vector(text: list[str]) -> dict[str, float]:
        weights = {
            word: (1 + math.log(count)) * max(0.01, math.log((size + 1) / max(1, known[word])))
            if word in known
            else (1 + math.log(count)) * max(0.01, math.log(size + 1))
            for word, count in Counter(text).items()
        }
        length = math.sqrt(sum(value**2 for value in weights.values())) or 1.0
        return {word: value / length for word, value in weights.items()}

    mine = vector(asked)
    found = []
    for text in texts:
        theirs = vector(text)
        held = sum(value**2 for word, value in theirs.items() if word in mine)
        found.append((sum(value * mine.get(word, 0.0) for word, value in theirs.items()), held))
    return found


@given(TEXTS, TEXT, BOUND, BOUND)
def test_the_index_agrees_with_comparing_every_pair(
    texts: list[list[str]], asked: list[str], similarity: float, containment: float
) -> None:
    found = {one.place: one for one in Index(texts).near(asked, similarity=similarity, containment=containment)}
    for place, (cosine, held) in enumerate(slowly(texts, asked)):
        judged = len(set(texts[place])) >= FEWEST_WORDS
        sure = cosine > similarity + 1e-4 or (judged and held > containment + 1e-4)
        never = cosine < similarity - 1e-4 and (not judged or held < containment - 1e-4)
        if sure:
            assert place in found
            assert math.isclose(found[place].similarity, min(1.0, cosine), abs_tol=1e-3)
            assert math.isclose(found[place].containment, min(1.0, held), abs_tol=1e-3)
        elif never:
            assert place not in found


@given(TEXTS.filter(any), st.data())
def test_a_copy_in_another_order_is_the_same_text(texts: list[list[str]], data: st.DataObject) -> None:
    place = data.draw(st.sampled_from([place for place, text in enumerate(texts) if text]))
    copy = data.draw(st.permutations(texts[place]))
    found = {one.place: one for one in Index(texts).near(copy, similarity=0.8, containment=0.95)}
    assert found[place].similarity > 0.999


@given(TEXTS, TEXTS)
def test_words_weigh_in_a_small_index_what_they_weigh_in_the_large_one(
    texts: list[list[str]], few: list[list[str]]
) -> None:
    large = Index(texts)
    small = Index(few, like=large)
    for word in {word for text in few for word in text}:
        assert small.weight(word) == large.weight(word)
    for place, text in enumerate(few):
        if text and texts:
            found = {one.place: one.similarity for one in small.near(text, similarity=0.8, containment=0.95)}
            assert found[place] > 0.999


@given(TEXTS, TEXTS)
def test_many_at_once_are_answered_as_one_by_one(texts: list[list[str]], asked: list[list[str]]) -> None:
    index = Index(texts)
    bounds = {"similarity": 0.7, "containment": 0.9}
    assert index.nearest(asked, **bounds) == [index.near(text, **bounds) for text in asked]
