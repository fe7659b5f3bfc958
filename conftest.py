"""What holds for every test: the runtime environments that are installed, names of tests, and which run beside others.

A runtime's Python is shown as `CHIMERA_RUNTIME_<NAME>_PYTHON`. `make test` installs them first; a test of a framework
whose environment isn't there is skipped with the reason.
"""

import os
import re
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from chimera.adapters.runtimes import NAMES, Runtimes
from chimera.kernel.places import runtime_overrides, runtimes_folder
from chimera.platform.errors import RuntimeMissing

LONGEST_ID = 40
ACCEPTANCE = "tests/acceptance/platform"
SHARED = re.compile(
    r"^(?:@pytest\S*fixture.*\n(?:async )?def \w+|(?:async )?def test_\w+)\((?:[^)]*\W)?(platform|home)\b", re.MULTILINE
)
"""What asks for the platform, or the home, that several files of acceptance tests have one of between them."""


def pytest_configure() -> None:
    """Name the installed environments before any test is collected; have processes keep what Python compiles.

    Tests start hundreds of Python processes. Without compiled files each takes two to three times the processor time,
    whoever asked for that by `PYTHONDONTWRITEBYTECODE`.
    """
    # How long an example takes says how busy the machine is.
    settings.register_profile("chimera", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("chimera")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    runtimes = Runtimes(runtimes_folder(os.environ), runtime_overrides(os.environ))
    for name in NAMES:
        try:
            python = runtimes.python(name)
        except RuntimeMissing:
            continue
        os.environ.setdefault(f"CHIMERA_RUNTIME_{name.upper().replace('-', '_')}_PYTHON", str(python))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long bytes by their argument: an archive holds the time, and every process must find the same tests."""
    return argname if isinstance(val, bytes) and len(val) > LONGEST_ID else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Several processes (`pytest -n 2`) take whole files, in the order of their paths: the longest are the first.

    Fixtures of a module are then made once; and so is what files of acceptance tests share, since they count as one.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return shared.get(file, file)

    shared = {}
    for file in (config.rootpath / ACCEPTANCE).glob("test_*.py"):
        if found := SHARED.search(file.read_text(encoding="utf-8")):
            shared[str(file.relative_to(config.rootpath))] = f"{ACCEPTANCE} {found[1]}"
    config.option.loadscopereorder = False
    return ByFile(config, log)
