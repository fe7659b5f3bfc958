"""Where names end and the definition begins, on made-up entries that have the shapes of the real ones."""

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

CORPUS = [
    "brew tea make tea prepare tea Prepare tea from leaves, and serve it to guests.",
    "lead a choir direct a choir Direct the singers of a choir.",
    "serve guests attend to guests Serve guests politely and prepare the bill.",
    "use Acme Office Acme Suite The computer program Acme Office is a tool for writing.",
    "Elvish competent in Elvish The Elvish language.",
    "milliner hat maker Milliners design hats for the theatre.",
    "Smart City planner smart city adviser Smart city planners advise towns on smart services.",
    "smart city life in a smart city the smart people of a city",
    "hatters direct, prepare, serve and lead",
]


@pytest.mark.parametrize(
    ("text", "names", "definition"),
    [
        (CORPUS[0], "brew tea make tea prepare tea", "Prepare tea from leaves, and serve it to guests."),
        (CORPUS[3], "use Acme Office Acme Suite", "The computer program Acme Office is a tool for writing."),
        (CORPUS[4], "Elvish competent in Elvish", "The Elvish language."),
        (CORPUS[5], "milliner hat maker", "Milliners design hats for the theatre."),
        (
            CORPUS[6],
            "Smart City planner smart city adviser",
            "Smart city planners advise towns on smart services.",
        ),
        (
            "Tea room workers  Tea room workers serve tea.\nTasks include - (a) brewing",
            "Tea room workers",
            "Tea room workers serve tea. Tasks include - (a) brewing",
        ),
        ("teach English for Serve of Others teach it Serve tea to guests.", None, "Serve tea to guests."),
    ],
)
def test_the_definition_is_the_first_capitalised_sentence(
    esco_split: ModuleType, text: str, names: str | None, definition: str
) -> None:
    split = esco_split.Splitter(CORPUS).split(text)
    assert split.found
    assert split.definition == definition
    assert names is None or split.names == names


def test_a_text_without_a_border_is_kept_whole_and_said_to_have_failed(esco_split: ModuleType) -> None:
    split = esco_split.Splitter(CORPUS).split("run live online 'Live' work of some kind")
    assert not split.found
    assert (split.names, split.definition) == ("", "run live online 'Live' work of some kind")


def test_invisible_characters_do_not_hide_the_border(esco_split: ModuleType) -> None:
    split = esco_split.Splitter(CORPUS).split("speak Elvish \u200bServe tea in \u200bElvish.")
    assert split.definition == "Serve tea in Elvish."


@given(text=st.text(st.characters(codec="utf-8"), max_size=300))
def test_no_word_is_lost_whatever_the_text(esco_split: ModuleType, text: str) -> None:
    split = esco_split.Splitter(CORPUS).split(text)
    invisible = dict.fromkeys(map(ord, "\u200b\u200c\u200d\ufeff\u00ad"))
    assert f"{split.names} {split.definition}".split() == text.translate(invisible).split()
