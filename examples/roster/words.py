"""Words of English texts, plain enough for rules: lower case, without function words, cut to a rough stem."""

import re
import unicodedata
from functools import lru_cache

_WORD = re.compile(r"[a-z][a-z0-9+#]*")


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written as running text."""
    return frozenset(text.split())


FUNCTION_WORDS = word_set(
    """a about above according across after all also among an and any are as at away be been being between both but by
    can case cases could different do does during each either etc for from further get given has have having help how
    however if in including into is it its itself may more most much must new not of off on one only onto or order
    other others our out over own per provide provided related same several should so some specific such take than
    that the their them then there these they this those through throughout to together too under until up upon use
    used uses using various very via was we well were what when where whether which while who whom whose why will
    with within without work works would you your"""
)
_ENDINGS = ("ations", "ation", "ments", "ment", "ingly", "ings", "ing", "ions", "ion", "ies", "ed", "es", "s", "y", "e")
_SHORTEST_STEM = 4
LONGEST_SLUG = 40


def plain(text: str) -> str:
    """Lower case, without accents."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """`managing`, `manages` and `management` as `manag`."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: -len(ending)]
    return word


def words(text: str) -> list[str]:
    """All words in order."""
    return _WORD.findall(plain(text))


def content_words(text: str) -> list[str]:
    """The words that carry meaning, each once, in order."""
    return [word for word in dict.fromkeys(words(text)) if len(word) > 1 and word not in FUNCTION_WORDS]


def slug(text: str, *, longest: int = LONGEST_SLUG) -> str:
    """Small letters, digits and hyphens, cut at a word's end where there is one; `entry` for a text without either."""
    made = re.sub(r"[^a-z0-9]+", "-", plain(text)).strip("-")
    if len(made) > longest:
        made = made[: longest + 1].rsplit("-", 1)[0][:longest]
    return made.strip("-") or "entry"
