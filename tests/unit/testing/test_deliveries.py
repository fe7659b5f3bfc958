"""The checker of deliveries refuses what must not happen."""

import pytest

from chimera.testing.deliveries import Place, repeats, violations

ORDER: list[Place] = [("a", 1), ("b", 1), ("a", 2), ("b", 3)]


@pytest.mark.parametrize(
    ("acknowledged", "arrived", "wrong"),
    [
        (ORDER, ORDER, []),
        (ORDER, [*ORDER, *ORDER], []),
        ([], ORDER, []),
        (ORDER, ORDER[:3], ["b 3 was lost"]),
        (ORDER, [ORDER[2], ORDER[0], ORDER[1], ORDER[3]], ["a 1 came after 2"]),
    ],
)
def test_histories(acknowledged: list[Place], arrived: list[Place], wrong: list[str]) -> None:
    assert violations(acknowledged, arrived) == wrong


def test_repeats_are_counted() -> None:
    assert (repeats(ORDER), repeats([*ORDER, ORDER[1]])) == (0, 1)
