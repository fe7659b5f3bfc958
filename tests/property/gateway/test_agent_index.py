"""The index of what agents subscribe to, held against asking every subscription of every agent."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chimera.agents.subscriptions import TakenEvents, filters_of
from chimera.events import filters
from chimera.gateway.eventing.happening import Happening
from chimera.gateway.eventing.index import AgentIndex
from chimera.platform.model import Route

TYPES = ("a.b", "a.b.c", "a.c", "chimera.task.failed")
SUBJECTS = ("", "x", "x/y", "agents/one/tasks/1")
names = st.sampled_from(("one", "two", "three"))
texts = st.lists(st.sampled_from((*TYPES, "a.*", "a.b*", "chimera.*")), min_size=1, max_size=3, unique=True)
subjects = st.lists(st.sampled_from(("x", "x/y", "x*", "agents/*")), max_size=2, unique=True)
subscription = st.builds(
    lambda types, subjects, sources, data: TakenEvents(
        name="s", types=tuple(types), subjects=tuple(subjects), sources=tuple(sources), data=data
    ),
    texts,
    subjects,
    st.lists(st.sampled_from(("shop", "sh*")), max_size=1),
    st.sampled_from(({}, {"n": 1}, {"n": True})),
)
events = st.builds(
    lambda type_, subject, source, data, seq: Happening(
        tenant="default",
        attributes={"specversion": "1.0", "id": "1", "source": source, "type": type_}
        | ({"subject": subject} if subject else {}),
        json=data,
        seq=seq,
    ),
    st.sampled_from(TYPES),
    st.sampled_from(SUBJECTS),
    st.sampled_from(("shop", "other")),
    st.sampled_from((None, b'{"n": 1}', b'{"n": true}')),
    st.sampled_from((None, 1, 9)),
)


def route(name: str, several: list[TakenEvents], since: int, status: str) -> Route:
    named = tuple(
        TakenEvents(**{**{f: getattr(one, f) for f in TakenEvents.__struct_fields__}, "name": f"s{number}"})
        for number, one in enumerate(several)
    )
    fields: dict[str, Any] = {"tenant": "default", "agent": name, "revision": "r", "cell": "c", "sequence": 1}
    protocols = ("events",)
    return Route(
        **fields, framework="function", status=status, protocols=protocols, subscriptions=named, events_since=since
    )


def naive(live: dict[str, Route], event: Happening) -> set[tuple[str, str]]:
    found = set()
    for name, one in live.items():
        own = f"agents/{name}"
        if event.type.startswith("chimera.") and (event.subject == own or event.subject.startswith(f"{own}/")):
            continue
        if event.seq is not None and event.seq <= one.events_since:
            continue
        for taken in one.subscriptions:
            data = event.data or {}
            same = all(
                data.get(path) == value and type(data.get(path)) is type(value) for path, value in taken.data.items()
            )
            if filters.passes(filters_of(taken), event.attributes) and same:
                found.add((name, taken.name))
    return found


changes = st.lists(
    st.tuples(
        names, st.lists(subscription, max_size=3), st.integers(0, 5), st.sampled_from(("live", "live", "deleted"))
    ),
    max_size=8,
)


@given(changes, st.lists(events, min_size=1, max_size=6))
def test_the_index_finds_whom_asking_everybody_finds(
    changed: list[tuple[str, list[TakenEvents], int, str]], asked: list[Happening]
) -> None:
    index, live = AgentIndex(), {}
    for name, several, since, status in changed:
        made = route(name, several, since, status)
        index.take(made)
        if status == "live":
            live[name] = made
        else:
            live.pop(name, None)
    for event in asked:
        found = [(one.route.agent, one.taken.name) for one in index.receivers(event)]
        assert len(found) == len(set(found)) and set(found) == naive(live, event)
        assert index.wanted(event) is bool(found)
    for name in list(live):
        index.remove("default", name)
    assert len(index) == 0 and not any(index.receivers(event) for event in asked)
