"""The tree against another implementation of RFC 6962; pymerkle is GPL-3.0 and serves here alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.immune.audit.merkle import Frontier

pymerkle = pytest.importorskip("pymerkle")


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=80))
def test_roots_are_those_of_pymerkle(leaves: list[bytes]) -> None:
    tree, other = Frontier(), pymerkle.InmemoryTree(algorithm="sha256")
    for leaf in leaves:
        tree.append(leaf)
        other.append_entry(leaf)
        assert tree.root() == other.get_root()
