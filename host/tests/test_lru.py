"""The cache against the plainest model of it: a list of keys in order of use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chimera_host.lru import Lru

keys = st.sampled_from("abcdefgh")


class LruMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.lru = Lru()
        self.order = []
        self.users = {}
        self.used_at = {}
        self.now = 0.0

    def used(self, key):
        self.now += 1
        if key in self.order:
            self.order.remove(key)
        self.order.append(key)
        self.used_at[key] = self.now
        return self.now

    @rule(key=keys)
    def add(self, key):
        if key in self.order:
            with pytest.raises(ValueError):
                self.lru.add(key, key, self.now)
            return
        self.users[key] = 0
        self.lru.add(key, key, self.used(key))

    @rule(key=keys)
    def take(self, key):
        if key not in self.order:
            assert self.lru.take(key, self.now) is None
            return
        entry = self.lru.take(key, self.used(key))
        self.users[key] += 1
        assert entry.value == key and entry.users == self.users[key]

    @precondition(lambda self: any(self.users.get(key) for key in self.order))
    @rule(data=st.data())
    def release(self, data):
        key = data.draw(st.sampled_from([key for key in self.order if self.users[key]]))
        self.lru.release(key, self.used(key))
        self.users[key] -= 1

    @rule(capacity=st.integers(0, 8))
    def drop_beyond(self, capacity):
        free = [key for key in self.order if not self.users[key]]
        expected = free[: max(0, len(self.order) - capacity)]
        assert [key for key, _ in self.lru.drop_beyond(capacity)] == expected
        self.order = [key for key in self.order if key not in expected]

    @rule(age=st.integers(0, 30))
    def drop_idle(self, age):
        before = self.now - age
        expected = [key for key in self.order if not self.users[key] and self.used_at[key] < before]
        assert [key for key, _ in self.lru.drop_idle(before)] == expected
        self.order = [key for key in self.order if key not in expected]

    @invariant()
    def same_order(self):
        assert [key for key, _ in self.lru] == self.order
        assert [key for key, _ in self.lru.newest(3)] == self.order[::-1][:3]
        assert len(self.lru) == len(self.order)


TestLru = LruMachine.TestCase


@given(st.lists(keys, unique=True, min_size=1))
def test_what_is_in_use_is_never_given_up(names):
    lru = Lru()
    for name in names:
        lru.add(name, name, 0.0)
        lru.take(name, 0.0)
    assert lru.drop_beyond(0) == [] and lru.drop_idle(100.0) == []
    assert len(lru) == len(names)


def test_a_release_too_many_is_an_error():
    lru = Lru()
    lru.add("a", 1, 0.0)
    with pytest.raises(ValueError):
        lru.release("a", 1.0)
