"""The first of several names that were run together without a mark between them."""

from roster.words import stem, words

MOST_WORDS = 8
SHORTEST_TELLING = 4
"""Shorter words (`of`, `and`) recur without telling anything."""


def first_name(names: str) -> tuple[str, str]:
    """The first of several names that were run together, and the rest.

    Other names repeat words of the first. Where the first repeated word stands in the second name tells how long the
    first is, since both are built alike: `supervise prison procedures | oversee prison procedures`. A guess, used for
    naming only; eight words at most.
    """
    parts = names.split()
    stems = [(words(part) or [""])[0] for part in parts]
    stems = [stem(one) for one in stems]
    seen: dict[str, int] = {}
    border = len(parts)
    for position, one in enumerate(stems):
        if one in seen:
            length = position - seen[one]
            border = length if length > seen[one] else position
            break
        if len(one) >= SHORTEST_TELLING:
            seen[one] = position
    border = min(border, MOST_WORDS)
    return " ".join(parts[:border]), " ".join(parts[border:])
