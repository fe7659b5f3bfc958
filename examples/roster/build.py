"""Writes a roster: one YAML file per entry in folders named by the key's hash, and a report of what was made.

The folder is made anew each time, so that it holds this roster and nothing else; one that holds anything this builder
didn't write is refused. Same entries, same bytes.
"""

import argparse
import hashlib
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from roster.behaviours import shape
from roster.definition import definition
from roster.entry import Entry
from roster.yaml_writer import dump

MARK = ".roster"


@dataclass(kw_only=True, slots=True)
class Report:
    """What a build made: agents by framework and by shape, domains, and the digest over all names and bytes."""

    frameworks: Counter[str] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)
    domains: Counter[str] = field(default_factory=Counter)
    digest: str = ""

    def lines(self) -> list[str]:
        """For people."""
        total = sum(self.frameworks.values()) or 1
        parts = [
            f"{total if self.frameworks else 0:,} agents in {len(self.domains):,} domains, digest {self.digest[:16]}"
        ]
        parts += [f"  {name:<34}{count:>7,}  {count / total:6.1%}" for name, count in sorted(self.frameworks.items())]
        parts += [f"    {name:<32}{count:>7,}  {count / total:6.1%}" for name, count in sorted(self.shapes.items())]
        return parts


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that every roster's builder takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to; made anew each time")
    parser.add_argument("--limit", type=int, help="write this many agents, taken evenly from the whole roster")
    return parser


def evenly(entries: list[Entry], limit: int | None) -> list[Entry]:
    """`limit` of the entries, from all parts of the list."""
    if limit is None or limit >= len(entries):
        return entries
    return [entries[index * len(entries) // limit] for index in range(max(limit, 0))]


def write(entries: Iterable[Entry], out: Path, rarity: Callable[[str], float]) -> Report:
    """Write every entry's definition under `out`."""
    _make_anew(out)
    report = Report()
    digest = hashlib.sha256()
    written: set[str] = set()
    shards: set[str] = set()
    for entry in entries:
        data, _ = definition(entry, rarity)
        name = data["metadata"]["name"]
        if name in written:
            raise ValueError(f"two entries are named {name!r}: the source holds one key twice")
        written.add(name)
        text = dump(data).encode()
        shard = hashlib.sha256(name.encode()).hexdigest()[:2]
        if shard not in shards:
            (out / shard).mkdir()
            shards.add(shard)
        with open(f"{out}/{shard}/{name}.yaml", "wb") as file:  # noqa: PTH123  (a Path costs more than the write)
            file.write(text)
        digest.update(name.encode() + b"\0" + text)
        report.frameworks[data["specification"]["framework"]] += 1
        report.shapes[shape(data["behaviour"])] += 1
        report.domains.update(tag for tag in data["metadata"]["tags"] if tag.startswith("domain:"))
    report.digest = digest.hexdigest()
    return report


def run(entries: list[Entry], options: argparse.Namespace, rarity: Callable[[str], float], began: float) -> None:
    """Write the roster that the options ask for and print the report."""
    try:
        report = write(evenly(entries, options.limit), options.out, rarity)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(*report.lines(), sep="\n")
    print(f"written to {options.out} in {time.perf_counter() - began:.1f} s")


def _make_anew(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise ValueError(f"{out} holds files that no roster builder wrote; give another folder with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text("This folder is made anew by a roster builder; changes here are lost.\n", encoding="utf-8")
