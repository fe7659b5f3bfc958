"""Only locked requirements are taken, and their digest is over what is locked."""

import pytest

from chimera.agents.errors import InvalidDefinition
from chimera.agents.requirements import read_lock

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_spelling_order_and_comments_do_not_count() -> None:
    one = f"# made\nMy.Tax_Lib==1.0 ; python_version >= '3.11' \\\n  --hash={A} \\\n  --hash={B}\n\nzoo==2 --hash={A}\n"
    two = f"zoo==2 --hash={A} # for animals\nmy-tax-lib == 1.0; python_version  >=  '3.11' --hash={B} --hash={A}"
    assert read_lock(one, file="r").digest == read_lock(two, file="r").digest
    assert read_lock(one, file="r").lines[0].startswith("my-tax-lib==1.0 ; python_version >= '3.11' --hash=")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tax", "doesn't name one version"),
        (f"tax>=1 --hash={A}", "doesn't name one version"),
        (f"tax==1.* --hash={A}", "doesn't name one version"),
        (f"tax==1,<2 --hash={A}", "doesn't name one version"),
        (f"tax @ https://example.org/tax.whl --hash={A}", "doesn't name one version"),
        (f"https://example.org/tax.whl --hash={A}", "doesn't name one version"),
        ("tax==1", "has no hash"),
        ("tax==1 --hash=md5:0123", "no hash that counts"),
        (f"tax==1 --hash={A[:-1]}", "no hash that counts"),
        ("-r other.txt", "option -r"),
        ("-e .", "option -e"),
        ("--index-url https://example.org", "option --index-url"),
        ("--extra-index-url=https://example.org", "option --extra-index-url"),
    ],
)
def test_what_is_not_locked_is_refused(line: str, words: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        read_lock(f"zoo==2 --hash={A}\n\n{line}\n", file="r.txt")
    (fault,) = caught.value.faults
    assert words in fault.message
    assert (fault.file, fault.line) == ("r.txt", 3)


def test_every_line_is_told_at_once_and_twice_is_once_too_often() -> None:
    with pytest.raises(InvalidDefinition) as caught:
        read_lock(f"a\nb\nzoo==2 --hash={A}\nzoo==2 --hash={B}", file="r.txt")
    assert [fault.line for fault in caught.value.faults] == [1, 2, 4]


def test_one_name_has_one_version() -> None:
    with pytest.raises(InvalidDefinition, match="twice"):
        read_lock(f"zoo==2 --hash={A}\nzoo==3 --hash={B}", file="r.txt")


def test_markers_may_split_a_name() -> None:
    text = f"zoo==2 ; python_version < '3.12' --hash={A}\nzoo==3 ; python_version >= '3.12' --hash={B}"
    assert len(read_lock(text, file="r").lines) == 2
