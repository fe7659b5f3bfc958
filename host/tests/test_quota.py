import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera_host.errors import AgentOverShare
from chimera_host.quota import BURST_SECONDS, CpuShare, folder_bytes

steps = st.lists(st.tuples(st.floats(0, 50), st.floats(0, 30)), max_size=40)


@given(st.floats(0.1, 2), steps)
def test_who_stays_within_the_share_is_never_refused(share, waits):
    cpu, now = CpuShare(share=share), 0.0
    for waited, _ in waits:
        now += waited
        cpu.spend(waited * share * 0.999, now)
        cpu.check("a", now, alone=lambda: False)


@given(st.floats(0.1, 2), steps)
def test_over_a_long_time_nobody_gets_more_than_share_and_burst(share, spent):
    cpu, now, used, biggest = CpuShare(share=share), 0.0, 0.0, 0.0
    for waited, seconds in spent:
        now += waited
        try:
            cpu.check("a", now, alone=lambda: False)
        except AgentOverShare as refusal:
            assert refusal.retry_after > 0
            continue
        cpu.spend(seconds, now)
        used += seconds
        biggest = max(biggest, seconds)
    assert used <= share * (now + BURST_SECONDS) + biggest + 1e-6
    assert cpu.total == pytest.approx(used)


def test_alone_it_may_use_everything():
    cpu = CpuShare(share=0.1)
    cpu.spend(1000.0, 1.0)
    cpu.check("a", 1.0, alone=lambda: True)
    with pytest.raises(AgentOverShare):
        cpu.check("a", 1.0, alone=lambda: False)


def test_a_folder_is_measured_without_following_links(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to("/usr")
    with (tmp_path / "sparse").open("wb") as file:
        os.truncate(file.fileno(), 10**9)
    assert 100_000 <= folder_bytes(tmp_path) < 200_000
    assert folder_bytes(tmp_path / "missing") == 0
