"""The figures of deliveries are taken of what they say, and can be had quickly."""

from benchmarks import events


def test_every_case_is_delivered_by_every_way() -> None:
    figures = events.one_run(20)

    assert list(figures) == [case.name for case in events.cases(20)]
    for ways in figures.values():
        assert list(ways) == list(events.WAYS)
        assert all(rate > 0 for rate in ways.values())
