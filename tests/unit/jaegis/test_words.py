"""Words of texts, in the one form that they are compared by."""

import pytest

from chimera.jaegis.words import telling, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Audits invoices of suppliers", ["audit", "invoic", "supplier"]),
        ("auditing an INVOICE", ["audit", "invoic"]),
        ("C++ and C#", ["c++", "c#"]),
        ("the of and", []),
        ("", []),
    ],
)
def test_each_word_has_one_form(text: str, expected: list[str]) -> None:
    assert telling(text) == expected


def test_words_are_all_of_them_in_small_letters() -> None:
    assert words("The Audit, of 3 bills.") == ["the", "audit", "of", "3", "bills"]


def test_a_word_is_one_object_however_many_texts_hold_it() -> None:
    """A snapshot of thousands of agents holds hundreds of thousands of words, and few different ones."""
    one, other = telling("".join(("reconcil", "iations"))), telling("".join(("reconcili", "ation")))
    assert one[0] == other[0] and one[0] is other[0]
