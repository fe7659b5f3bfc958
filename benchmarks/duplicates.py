"""How well copies of live agents are found, and how fast: planted copies in a roster, by the default bounds.

    python -m benchmarks.duplicates --roster FOLDER      a roster as examples/esco and examples/onet build it
    python -m benchmarks.duplicates                      the one from ESCO, built first

Copies of `COPIES` agents are rewritten in each of the ways of `WAYS` and asked about: recall is how many of them are
found to be twins of what they were copied from. A roster has no list of its true duplicates, so precision is bounded
from below: every agent of the roster that has a twin in it counts as a false alarm, also where both say the same.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import agents
from chimera.agents import yaml
from chimera.jaegis.duplicates import Index
from chimera.jaegis.quality.settings import QualitySettings
from chimera.jaegis.words import telling

COPIES, SEED = 500, 7
Text = list[str]
Way = Callable[[random.Random, Text, Text], Text]
BEFORE = "This agent helps people with the following work in our company, politely and in short sentences: "
BEHIND = " Please say so where you are not sure and ask before anything is sent to a customer."


def measure(texts: Sequence[str], copies: int = COPIES) -> Iterator[tuple[str, float, str]]:
    """Rows: what was measured, the value, its unit."""
    chance = random.Random(SEED)
    bounds = {"similarity": QualitySettings().similarity, "containment": QualitySettings().containment}
    began = time.process_time()
    terms = [tuple(telling(text)) for text in texts]
    read = time.process_time()
    index = Index(terms)
    built = time.process_time()
    found = index.nearest(terms, **bounds)
    asked = time.process_time()
    alarms = sum(any(one.place != place for one in near) for place, near in enumerate(found))
    yield "agents", len(texts), "count"
    yield "words of all texts", read - began, "CPU s"
    yield "index of all", built - read, "CPU s"
    yield "all asked, one by one", asked - built, "CPU s"
    yield "agents of the roster with a twin in it", alarms, "count"
    words = [word for text in texts for word in text.split()]
    chosen = chance.sample(range(len(texts)), min(copies, len(texts)))
    hits = asked_for = 0
    for name, way in WAYS.items():
        copied = [tuple(telling(" ".join(way(chance, texts[place].split(), words)))) for place in chosen]
        near = index.nearest(copied, **bounds)
        right = sum(any(one.place == place for one in mine) for place, mine in zip(chosen, near, strict=True))
        hits, asked_for = hits + right, asked_for + len(chosen)
        yield f"recall: {name}", right / len(chosen), ""
    yield "recall: all ways", hits / asked_for, ""
    share = alarms / len(texts)
    # Of as many new agents as there are copies, so many would be told they are twins though nobody copied them.
    yield "precision, at least, where one new agent in ten is a copy", _precision(hits / asked_for, share, 0.1), ""


def _precision(recall: float, false_alarms: float, copied: float) -> float:
    right = recall * copied
    return right / (right + false_alarms * (1 - copied))


def _dropped(share: float) -> Way:
    return lambda chance, text, _: [word for word in text if chance.random() >= share] or text[:1]


def _replaced(share: float) -> Way:
    return lambda chance, text, words: [chance.choice(words) if chance.random() < share else word for word in text]


def _shuffled(chance: random.Random, text: Text, _: Text) -> Text:
    return chance.sample(text, len(text))


def _misspelt(chance: random.Random, text: Text, _: Text) -> Text:
    return [
        word[:2] + word[3] + word[2] + word[4:] if len(word) > 4 and chance.random() < 0.1 else word for word in text
    ]


WAYS: dict[str, Way] = {
    "the same under another name": lambda chance, text, words: text,
    "in another order": _shuffled,
    "a word in ten replaced": _replaced(0.1),
    "a word in five replaced": _replaced(0.2),
    "a word in seven left out": _dropped(0.15),
    "a word in three left out": _dropped(0.3),
    "a long word in ten misspelt": _misspelt,
    "with two sentences around it": lambda chance, text, words: [*BEFORE.split(), *text, *BEHIND.split()],
    "the last two fifths left out": lambda chance, text, words: text[: max(4, len(text) * 3 // 5)],
}


def read(folder: Path) -> list[str]:
    """The texts of a roster: descriptions and functions."""
    found = []
    for file in sorted(folder.rglob("*.yaml")):
        data = yaml.load(file.read_text(encoding="utf-8"), file=str(file))
        found.append(" ".join([data["metadata"]["description"], *data["capabilities"]["primary_functions"]]))
    return found


def _built(folder: Path) -> Path:
    agents.build(folder, every=False, limit=None)
    return folder


def main() -> int:
    """Print the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.duplicates", description=main.__doc__)
    parser.add_argument("--roster", type=Path, help="a roster that is built already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chimera-bench-") as scratch:
        folder = options.roster or _built(Path(scratch) / "roster")
        for what, value, unit in measure(read(folder)):
            shown = f"{value:,.0f}" if unit == "count" else f"{value:.3f}"
            sys.stdout.write(f"{what:<60}{shown:>10} {unit if unit != 'count' else ''}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
