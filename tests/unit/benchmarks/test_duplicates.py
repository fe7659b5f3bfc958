"""The benchmark of duplicates: every row once, and a roster in which it can go wrong."""

from benchmarks.duplicates import WAYS, measure

TRADES = ["baker", "joiner", "roofer", "tailor", "cooper", "mason", "glazier", "potter", "weaver", "dyer"]
TEXTS = [
    f"Advises every {trade} on the {number} tools for {trade} work, compares prices of {trade} shops and drafts orders."
    for number, trade in enumerate(TRADES)
]


def rows(texts: list[str]) -> dict[str, float]:
    return {what: value for what, value, _ in measure(texts, copies=5)}


def test_every_way_has_its_row_and_plain_copies_are_always_found() -> None:
    found = rows(TEXTS)
    assert found["agents"] == len(TEXTS)
    assert {f"recall: {name}" for name in WAYS} <= set(found)
    assert found["recall: the same under another name"] == found["recall: in another order"] == 1.0
    assert 0.0 < found["recall: all ways"] <= 1.0


def test_agents_that_say_the_same_are_counted_as_alarms_and_lower_the_precision() -> None:
    name = "precision, at least, where one new agent in ten is a copy"
    plain, doubled = rows(TEXTS), rows([*TEXTS, *TEXTS[:3]])
    assert doubled["agents of the roster with a twin in it"] >= 6
    assert doubled[name] < plain[name]
