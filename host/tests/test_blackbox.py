import os

from hypothesis import given
from hypothesis import strategies as st

from chimera_host.blackbox import BlackBox, LastWords, RecordedCall, read_black_box

names = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1, max_size=63)
calls = st.builds(
    RecordedCall,
    tenant=names,
    agent=names,
    call=names,
    revision=names,
    started=st.floats(0, 2e9),
    deadline=st.floats(0, 2e9),
    cancelled=st.booleans(),
)


@given(st.lists(calls, max_size=4), st.sets(st.integers(0, 3)))
def test_it_holds_what_runs_and_nothing_else(tmp_path_factory, running, ended):
    path = tmp_path_factory.mktemp("box") / "box"
    box = BlackBox(path, 4)
    slots = [box.begin(call) for call in running]
    for index in ended:
        if index < len(slots):
            box.end(slots[index])
    expected = [call for index, call in enumerate(running) if index not in ended]
    recording = read_black_box(path)
    box.close()
    assert recording is not None and recording.pid == os.getpid()
    assert sorted(map(repr, recording.calls)) == sorted(map(repr, expected))


def test_a_full_box_records_no_more_and_takes_slots_back(tmp_path):
    path = tmp_path / "box"
    box = BlackBox(path, 1)
    call = RecordedCall(tenant="t", agent="a", call="c", revision="r", started=10.0, deadline=20.0)
    slot = box.begin(call)
    assert box.begin(call) is None
    box.mark_cancelled(slot)
    (recorded,) = read_black_box(path).calls
    assert recorded.cancelled and recorded.seconds(12.5) == 2.5
    box.end(slot)
    box.end(None)
    assert box.begin(call) == slot


def test_last_words_and_heartbeat(tmp_path):
    path = tmp_path / "deep" / "box"
    box = BlackBox(path, 2)
    assert read_black_box(path).last_words is None
    words = LastWords(exit="CALL_OVERDUE", reason="gone", agents=("a",), calls=("c",), at=1.5)
    box.last_words(words)
    box.beat(99.0)
    recording = read_black_box(path)
    assert recording.last_words == words and recording.heartbeat == 99.0
    box.last_words(LastWords(exit="X", reason="é" * 9000, agents=("a",) * 1000))
    assert read_black_box(path).last_words.reason == "é" * 1000


@given(st.binary(max_size=4096))
def test_anything_else_is_no_black_box(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("box") / "box"
    path.write_bytes(data)
    assert read_black_box(path) is None
    assert read_black_box(path.parent / "missing") is None


@given(st.data())
def test_a_damaged_box_is_read_without_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("box") / "box"
    box = BlackBox(path, 2)
    box.begin(RecordedCall(tenant="t", agent="ä" * 60, call="c", revision="r", started=1.0, deadline=2.0))
    box.last_words(LastWords(exit="X", reason="y"))
    box.close()
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    read_black_box(path)
