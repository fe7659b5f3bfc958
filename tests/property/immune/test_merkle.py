"""The tree against RFC 6962's recursive definition and its published test vectors; proofs against forgery."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.immune.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    Subtrees,
    consistency_ranges,
    inclusion_ranges,
    is_consistent,
    leaf_hash,
    root_of_inclusion,
)


def plain_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + plain_root(leaves[:k]) + plain_root(leaves[k:])).digest()


def leaves_of(count: int) -> list[bytes]:
    return [number.to_bytes(2, "big") for number in range(count)]


def frontier_of(leaves: list[bytes]) -> Frontier:
    made = Frontier()
    for leaf in leaves:
        made.append(leaf)
    return made


def hashes_of(ranges: list[tuple[int, int]], begin: int, leaves: list[bytes]) -> list[bytes]:
    subtrees = Subtrees(ranges, frontier_of(leaves[:begin]))
    for leaf in leaves[begin:]:
        subtrees.append(leaf)
    return subtrees.hashes()


def test_vectors_of_certificate_transparency() -> None:
    leaves = [bytes.fromhex(x) for x in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
    leaves.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for count, root in enumerate(roots, start=1):
        assert frontier_of(leaves[:count]).root().hex() == root


@given(st.integers(0, 200))
def test_root_is_the_rfcs(count: int) -> None:
    leaves = leaves_of(count)
    made = frontier_of(leaves)
    assert made.root() == plain_root(leaves)
    again = Frontier(count, made.hashes)
    again.append(b"next")
    assert again.root() == plain_root([*leaves, b"next"])


@given(st.data())
def test_inclusion_is_proved_from_any_earlier_frontier(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 130))
    index = data.draw(st.integers(0, size - 1))
    begin = data.draw(st.integers(0, index))
    leaves = leaves_of(size)
    proof = hashes_of(inclusion_ranges(index, size), begin, leaves)
    assert root_of_inclusion(index, size, leaves[index], proof) == plain_root(leaves)
    wrong = data.draw(st.integers(0, size - 1))
    if wrong != index:
        assert root_of_inclusion(index, size, leaves[wrong], proof) != plain_root(leaves)
        assert root_of_inclusion(wrong, size, leaves[index], proof) != plain_root(leaves)
    assert root_of_inclusion(index, size, leaves[index], [*proof, bytes(32)]) != plain_root(leaves)
    if proof:
        assert root_of_inclusion(index, size, leaves[index], proof[:-1]) != plain_root(leaves)


@given(st.data())
def test_consistency_is_proved_from_the_old_frontier(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, 130))
    old = data.draw(st.integers(1, new))
    leaves = leaves_of(new)
    proof = hashes_of(consistency_ranges(old, new), old, leaves)
    old_root, new_root = plain_root(leaves[:old]), plain_root(leaves)
    assert is_consistent(old, new, old_root, new_root, proof)
    forked = list(leaves)
    changed = data.draw(st.integers(0, old - 1))
    forked[changed] = b"other"
    forged = hashes_of(consistency_ranges(old, new), old, forked)
    assert not is_consistent(old, new, old_root, plain_root(forked), forged)
    assert not is_consistent(old, new, plain_root(forked[:old]), new_root, proof)
    assert not is_consistent(old, new, old_root, new_root, [*proof, bytes(32)])


def test_what_is_no_tree_is_refused() -> None:
    with pytest.raises(ValueError, match="has 2 hashes"):
        Frontier(3, [bytes(32)])
    with pytest.raises(ValueError, match="has no leaf"):
        inclusion_ranges(3, 3)
    with pytest.raises(ValueError, match="no proof leads"):
        consistency_ranges(4, 3)
    with pytest.raises(ValueError, match="leaves from 1"):
        Subtrees([(0, 2)], frontier_of([b"a"])).hashes()
    assert root_of_inclusion(5, 3, b"", []) is None
    assert leaf_hash(b"") != EMPTY_ROOT
