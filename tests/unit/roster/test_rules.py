"""Names, kinds of work and nearness: the rules that both rosters share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roster.behaviours import behaviour, shape
from roster.definition import definition, name_of, tags
from roster.entry import Entry
from roster.frameworks import judge
from roster.names import first_name
from roster.nearest import Nearest
from roster.words import slug, stem

from chimera.agents.compile import compile_definition
from chimera.agents.validate import check_data


def entry(label: str, definition: str, **rest: str) -> Entry:
    return Entry(key=rest.pop("key", "0123456789ab"), kind="skill", label=label, definition=definition, **rest)


@pytest.mark.parametrize(
    ("label", "text", "work"),
    [
        ("advise gardeners", "Advise people who keep gardens on what to plant.", "conversing"),
        ("soil types", "The different kinds of soil and what grows on them.", "conversing"),
        ("negotiate rents", "Negotiate the rent of land with its owners.", "conversing"),
        ("lead gardeners", "Manage a team of gardeners and plan their shifts.", "cooperating"),
        ("coordinate harvests", "Coordinate the staff of several farms.", "cooperating"),
        ("operate mowers", "Operate and clean the mower before it is stored.", "stepwise"),
        ("measure soil acidity", "Measure samples and record the results.", "stepwise"),
        ("zzz", "Zzz qqq xxx.", "stepwise"),
    ],
)
def test_the_kind_of_work_follows_from_the_words(label: str, text: str, work: str) -> None:
    assert judge(entry(label, text)).work == work


@pytest.mark.parametrize(
    ("label", "text", "expected"),
    [
        ("describe", "Explain how bees live.", "AutoGen conversational"),
        ("write", "Write reports on bees.", "AutoGen task_execution"),
        ("settle", "Negotiate disputes of neighbours.", "AutoGen coordination"),
        ("lead", "Manage a team of people.", "CrewAI sequential, 1 member"),
        ("lead", "Manage a team of people and ensure quality.", "CrewAI sequential, 2 members"),
        ("lead", "Manage the strategy of a team and ensure quality.", "CrewAI sequential, 3 members"),
        ("lead", "Delegate work to subordinates and ensure quality.", "CrewAI hierarchical, 2 members"),
        ("operate", "Operate mowers.", "LangGraph sequential"),
        ("operate", "Test and repair mowers.", "LangGraph conditional"),
        ("operate", "Mix and analyse soil.", "LangGraph parallel"),
    ],
)
def test_each_framework_has_several_shapes(label: str, text: str, expected: str) -> None:
    one = entry(label, text)
    assert shape(behaviour(one, judge(one).work)) == expected


@given(text=st.text(max_size=200), key=st.text("0123456789abcdef-", min_size=8, max_size=36))
def test_a_name_is_always_one_that_a_definition_may_have(text: str, key: str) -> None:
    name = name_of(entry(text, "x", key=key))
    assert len(name) <= 49
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert name[0] != "-"


def test_a_slug_ends_at_a_word_and_holds_forty_characters_at_most() -> None:
    assert slug("Préparer le café, for guests of the house on the hill") == "preparer-le-cafe-for-guests-of-the-house"
    assert slug("x" * 60) == "x" * 40
    assert slug("«»") == "entry"


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ("brew green tea brew tea make tea", "brew green tea"),
        ("brew green tea prepare green tea", "brew green tea"),
        ("tea room manager manager of tea rooms", "tea room manager"),
        ("gardener", "gardener"),
        ("one two three four five six seven eight nine ten", "one two three four five six seven eight"),
    ],
)
def test_the_first_name_ends_where_the_next_begins_to_repeat_it(names: str, first: str) -> None:
    found, rest = first_name(names)
    assert found == first
    assert f"{found} {rest}".strip() == names


def test_the_nearest_text_shares_the_rarest_words() -> None:
    texts = [["soil", "water", "plant"], ["tea", "water", "serve"], ["choir", "sing", "serve"]]
    nearest = Nearest(texts)
    assert [position for position, _ in nearest.find(["teas", "water"], count=2)] == [1, 0]
    assert nearest.find(["unheard"]) == []
    assert nearest.rarity("choir") > nearest.rarity("serve")
    assert nearest.rarity("unheard") == max(map(nearest.rarity, ["choir", "sing", "tea"]))


@given(
    st.lists(
        st.lists(st.sampled_from(["soil", "water", "plant", "tea", "serve", "choir", "sing"]), min_size=1), min_size=2
    )
)
def test_a_text_that_shares_a_telling_word_finds_something(texts: list[list[str]]) -> None:
    nearest = Nearest(texts)
    for text in texts:
        found = nearest.find(text, count=len(texts))
        assert len({position for position, _ in found}) == len(found)
        assert [nearness for _, nearness in found] == sorted((near for _, near in found), reverse=True)
        assert all(set(map(stem, texts[position])) & set(map(stem, text)) for position, _ in found)


def test_tags_are_sorted_by_prefix_and_say_what_is_worked_with() -> None:
    one = entry("clean milking machines", "Clean machines after each use, as the law asks.", domains=("Dairy farmers",))
    made = tags(one, lambda word: {"milking": 9.0, "machines": 2.0}.get(word, 1.0))
    assert made == [
        "capability:clean",
        "capability:machines",
        "capability:milking",
        "domain:dairy-farmers",
        "integration:machines",
        "integration:regulations",
    ]


@given(
    label=st.text(min_size=1, max_size=80),
    text=st.text(min_size=1, max_size=400),
    kind=st.sampled_from(["skill", "occupation", "task"]),
)
def test_every_text_makes_a_definition_that_compiles(label: str, text: str, kind: str) -> None:
    one = Entry(key="00ff00ff00", kind=kind, label=label, definition=text, other_names="{input} {x}")
    compiled = compile_definition(check_data(definition(one, len)), tenant="default")
    assert compiled.warnings == ()
