"""Shows every test the runtime environments that are installed, as `CHIMERA_RUNTIME_<NAME>_PYTHON`.

`make test` installs them first; a test of a framework whose environment isn't there is skipped with the reason.
"""

import os

from chimera.adapters.runtimes import NAMES, Runtimes
from chimera.kernel.places import runtime_overrides, runtimes_folder
from chimera.platform.errors import RuntimeMissing


def pytest_configure() -> None:
    """Name the installed environments before any test is collected."""
    runtimes = Runtimes(runtimes_folder(os.environ), runtime_overrides(os.environ))
    for name in NAMES:
        try:
            python = runtimes.python(name)
        except RuntimeMissing:
            continue
        os.environ.setdefault(f"CHIMERA_RUNTIME_{name.upper().replace('-', '_')}_PYTHON", str(python))
