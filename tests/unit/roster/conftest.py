"""The examples are scripts beside each other, not a package: their folders go onto the path here."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"
sys.path.insert(0, str(EXAMPLES))


def _load(example: str, module: str) -> ModuleType:
    """Load `examples/<example>/<module>.py` under a name of its own, since both examples have a `source`."""
    spec = importlib.util.spec_from_file_location(f"example_{example}_{module}", EXAMPLES / example / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    if module == "source" and example == "esco":
        sys.modules.setdefault("split", _load("esco", "split"))
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="session")
def esco_split() -> ModuleType:
    return _load("esco", "split")


@pytest.fixture(scope="session")
def esco_source() -> ModuleType:
    return _load("esco", "source")


@pytest.fixture(scope="session")
def onet_source() -> ModuleType:
    return _load("onet", "source")
