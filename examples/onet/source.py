"""O*NET's tasks as entries: one task is one agent. Read from tab-separated files made of the O*NET database.

The folder holds `tasks.tsv.gz`, `occupations.tsv.gz`, `work_activities.tsv.gz` and `task_work_activities.tsv.gz`. A
task's domain is its occupation; its capabilities are the detailed work activities that the database links it to.
"""

import csv
import gzip
from collections import defaultdict
from pathlib import Path

from roster.entry import Entry
from roster.names import MOST_WORDS

FILES = ("tasks.tsv.gz", "occupations.tsv.gz", "work_activities.tsv.gz", "task_work_activities.tsv.gz")


class DataMissing(Exception):
    """The folder doesn't hold the files of O*NET."""


def read(folder: Path) -> list[Entry]:
    """All tasks in the order of the file."""
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise DataMissing(f"{folder} lacks {', '.join(missing)}; say where O*NET's files are with --data")
    titles = {row["soc_code"]: row["title"] for row in _rows(folder / "occupations.tsv.gz")}
    activities = {row["dwa_id"]: row["dwa_title"].rstrip(".") for row in _rows(folder / "work_activities.tsv.gz")}
    needed: defaultdict[str, list[str]] = defaultdict(list)
    for row in _rows(folder / "task_work_activities.tsv.gz"):
        if title := activities.get(row["dwa_id"]):
            needed[row["task_id"]].append(title)
    return [
        Entry(
            key=row["task_id"],
            kind="task",
            label=" ".join(row["task"].split()[:MOST_WORDS]).rstrip(".,;:"),
            definition=row["task"],
            domains=(titles.get(row["soc_code"], "other work"),),
            capabilities=tuple(needed[row["task_id"]]),
        )
        for row in _rows(folder / "tasks.tsv.gz")
    ]


def _rows(file: Path) -> list[dict[str, str]]:
    with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
