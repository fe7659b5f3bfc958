"""What is generated is what the code says, the same bytes every time."""

from pathlib import Path

import pytest

from docs import generate


@pytest.mark.parametrize("name", sorted(generate.FILES))
def test_the_file_is_current(root: Path, name: str) -> None:
    made = generate.FILES[name]()
    content = made.encode() if isinstance(made, str) else made
    assert (root / name).read_bytes() == content, "run `make docs` and commit what it writes"


def test_the_check_names_what_differs_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "FILES", {"a/one.md": lambda: "one\n", "two.json": lambda: b"2\n"})
    monkeypatch.setattr("sys.argv", ["generate", "--check"])
    assert generate.main() == 1
    assert not any(tmp_path.iterdir())
    said = capsys.readouterr().out
    assert "differs: a/one.md" in said
    assert "make docs" in said

    monkeypatch.setattr("sys.argv", ["generate"])
    assert generate.main() == 0
    assert (tmp_path / "a" / "one.md").read_text() == "one\n"

    monkeypatch.setattr("sys.argv", ["generate", "--check"])
    assert generate.main() == 0
    (tmp_path / "two.json").write_bytes(b"3\n")
    assert generate.main() == 1
