"""The word that ends an AutoGen chat; the rules are pure and run without AutoGen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

WORD = "TERMINATE"
TEXTS = st.text(st.sampled_from("ab .*_!\nTERMINATE"), max_size=40) | st.text(max_size=40)


@pytest.fixture(scope="module")
def termination(pure_module):
    return pure_module("autogen/termination.py")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("It is 7. TERMINATE", "It is 7."),
        ("It is 7.\n\n**TERMINATE**", "It is 7."),
        ("It is **7** TERMINATE.", "It is **7**"),
        ("TERMINATE! TERMINATE", ""),
        ("TERMINATE", ""),
        ("Say TERMINATE to end it.", "Say TERMINATE to end it."),
        ('Answer with "TERMINATE".', 'Answer with "TERMINATE".'),
        ("EXTERMINATE", "EXTERMINATE"),
        ("TERMINATED", "TERMINATED"),
        ("  It is 7.  ", "  It is 7.  "),
    ],
)
def test_it_is_taken_away_at_the_end_alone(termination, text, left):
    assert termination.without(text, WORD) == left


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("TERMINATE", True),
        ("TERMINATE\nIs there anything else?", True),
        ("done_TERMINATE_", True),
        ("EXTERMINATE", False),
        ("TERMINATED", False),
        ("terminate", False),
        ("", False),
    ],
)
def test_it_is_said_as_a_word_of_its_own(termination, text, said):
    assert termination.says(text, WORD) is said


@given(text=TEXTS, word=st.sampled_from([WORD, "###", "<end>", "all done"]) | st.text(min_size=1, max_size=5))
def test_what_is_left_is_the_beginning_and_needs_no_second_time(termination, text, word):
    left = termination.without(text, word)
    assert text.startswith(left) and termination.without(left, word) == left
    assert left == text or word in text


@given(text=TEXTS, word=st.sampled_from([WORD, "<end>"]))
def test_a_word_put_at_the_end_is_found_and_taken_away(termination, text, word):
    signed = f"{text} {word}"
    assert termination.says(signed, word)
    assert termination.without(signed, word) == termination.without(text.rstrip(), word)


def test_endless_repetition_is_read_in_time(termination):
    assert termination.without("TERMINATE " * 20_000 + "TERM", WORD).endswith("TERM")
    assert termination.without("TERMINATE " * 2_000, WORD) == ""
