"""Builds the roster from O*NET: `uv run python examples/onet/build.py --out DIR [--data FOLDER]`.

One agent for each of 18,796 tasks, by the same rules as the ESCO roster. See README.md beside this file.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from roster.build import arguments, run
from roster.nearest import Nearest
from source import DataMissing, read


def default_folder() -> Path:
    """`$CHIMERA_DATA/onet`, else `shared/data/onet` beside the project's folder."""
    if folder := os.environ.get("CHIMERA_DATA"):
        return Path(folder) / "onet"
    return Path(__file__).resolve().parents[3] / "shared" / "data" / "onet"


def main() -> None:
    """Read the files, write the roster, print what was made."""
    began = time.perf_counter()
    parser = arguments("Build one agent definition for each O*NET task.")
    parser.add_argument("--data", type=Path, default=default_folder(), help="folder with O*NET's files")
    options = parser.parse_args()
    try:
        entries = read(options.data)
    except DataMissing as error:
        sys.exit(f"error: {error}")
    run(entries, options, Nearest([entry.words() for entry in entries]).rarity, began)


if __name__ == "__main__":
    main()
