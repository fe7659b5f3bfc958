"""The charts' generator is a package beside the project's own: its folder's parent goes onto the path here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
