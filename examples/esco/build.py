"""Builds the roster from ESCO: `uv run --project examples/esco python examples/esco/build.py --out DIR`.

One agent for each of 13,939 skills; with `--all` also for each of 3,658 occupations. See README.md beside this file.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from roster.build import arguments, run
from source import DataMissing, data_folder, read


def main() -> None:
    """Read the package, write the roster, print what was made."""
    began = time.perf_counter()
    parser = arguments("Build one agent definition for each ESCO skill.")
    parser.add_argument("--all", action="store_true", help="occupations too: 17,597 agents")
    options = parser.parse_args()
    try:
        source = read(data_folder())
    except DataMissing as error:
        sys.exit(f"error: {error}")
    print("This service uses the ESCO classification of the European Commission.")
    for kind, entries, failed in (
        ("skills", source.skills, source.failed_skills),
        ("occupations", source.occupations, source.failed_occupations),
    ):
        print(
            f"{len(entries):,} {kind}; no border between names and definition in {failed} ({failed / len(entries):.2%})"
        )
    entries = [*source.skills, *(source.occupations if options.all else ())]
    run(entries, options, source.nearest.rarity, began)


if __name__ == "__main__":
    main()
