"""Sides: weights as they say, sessions that stay, and which of them may go back to an older revision."""

from hypothesis import given
from hypothesis import strategies as st

from chimera.delivery.sides.model import WHOLE
from chimera.gateway.sides.faults import AGENT, CALLER, fault_of
from chimera.gateway.sides.rules import draw, served, why_stays
from chimera.platform.model import Route
from chimera_host.contract.agent import SourceCode
from chimera_host.contract.call import FRAMEWORK_VALUES, SessionState
from chimera_host.testing.builders import document

keys = st.text("abcdef0123456789", min_size=1, max_size=20)
weights = st.integers(min_value=0, max_value=WHOLE)


def route(revision: str, **fields: object) -> Route:
    made = {"tenant": "default", "agent": "anna", "cell": "c", "framework": "function", "sequence": 1}
    return Route(**{**made, "revision": revision, **fields})  # type: ignore[arg-type]


def sided(weight: int, **fields: object) -> Route:
    return route("blue", others=(route("green", side="green", weight=weight, **fields),))


@given(keys, weights, weights)
def test_a_key_moves_to_green_once_while_its_weight_grows(key: str, one: int, other: int) -> None:
    less, more = sorted((one, other))
    first, second = draw(sided(less), key, "http").revision, draw(sided(more), key, "http").revision
    assert (first, second) != ("green", "blue")
    assert draw(sided(less), key, "http").revision == first


@given(keys)
def test_no_weight_is_no_call_and_the_whole_is_all(key: str) -> None:
    assert draw(sided(0), key, "http").revision == "blue"
    assert draw(sided(WHOLE), key, "http").revision == "green"


def test_shares_are_those_of_the_weights() -> None:
    for weight in (100, 2_500, 5_000):
        drawn = sum(draw(sided(weight), f"call-{number}", "http").revision == "green" for number in range(4_000))
        share, wanted = drawn / 4_000, weight / WHOLE
        assert abs(share - wanted) < 4 * (wanted * (1 - wanted) / 4_000) ** 0.5


@given(keys)
def test_green_gets_nothing_that_it_cannot_answer(key: str) -> None:
    assert draw(sided(WHOLE, unservable="no"), key, "http").revision == "blue"
    assert draw(sided(WHOLE, protocols=("sse",)), key, "http").revision == "blue"
    assert draw(sided(WHOLE, protocols=("sse",)), key, "agent").revision == "green"


@given(st.floats(min_value=0.0, max_value=100.0), st.floats(min_value=0.0, max_value=100.0))
def test_a_revision_is_served_while_it_is_live_green_or_kept(until: float, now: float) -> None:
    kept = route("kept", side="kept", until=until)
    live = route("blue", others=(route("green", side="green", weight=0), kept))
    assert served(live, "blue", now) is live
    assert (found := served(live, "green", now)) is not None and found.side == "green"
    assert (served(live, "kept", now) is kept) is (until > now)
    assert served(live, "another", now) is None and served(live, None, now) is None


codes = st.sampled_from([None, "a", "b"])


def _source(bundle: str | None) -> SourceCode | None:
    return None if bundle is None else SourceCode(bundle="sha256:" + bundle * 64, entrypoint="m:f")


@given(
    st.sampled_from(["function", "langgraph"]),
    st.sampled_from(["function", "langgraph"]),
    codes,
    codes,
    st.sets(st.sampled_from(["cart", "step", *FRAMEWORK_VALUES])),
)
def test_a_session_goes_back_where_the_older_revision_can_read_it(
    newer: str, older: str, code: str | None, other: str | None, names: set[str]
) -> None:
    state = SessionState(values=dict.fromkeys(names, 1))
    before = document("anna", newer, source=_source(code))  # type: ignore[arg-type]
    after = document("anna", older, source=_source(other))  # type: ignore[arg-type]
    written = bool(names - FRAMEWORK_VALUES) and code is not None
    goes = newer == older and (not written or code == other)
    assert (why_stays(state, before, after) is None) is goes


def test_a_conversation_goes_on_in_the_same_framework() -> None:
    assert why_stays(SessionState(), document("anna", source=_source("a")), document("anna")) is None


@given(st.text(max_size=10), st.integers(min_value=400, max_value=599))
def test_every_outcome_is_somebodys(code: str, status: int) -> None:
    fault = fault_of(code, status)
    if code not in AGENT and code not in CALLER and code != "ok":
        assert fault == ("caller" if status < 500 else "platform")


def test_what_the_agent_answers_for() -> None:
    assert fault_of("ok", 200) == "none"
    assert (
        fault_of("agent-failed", 502) == fault_of("host-failed", 502) == fault_of("deadline-exceeded", 504) == "agent"
    )
    assert fault_of("cell-unavailable", 503) == fault_of("model-unavailable", 503) == "platform"
    assert fault_of("cancelled", 499) == fault_of("revision-withdrawn", 503) == fault_of("agent-busy", 429) == "caller"
