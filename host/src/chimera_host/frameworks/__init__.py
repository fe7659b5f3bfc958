"""Framework adapters, one module or package for each, imported only when its framework is asked for."""

import importlib
from typing import cast

from chimera_host.contract.agent import FrameworkName
from chimera_host.errors import AgentLoadError
from chimera_host.ports import FrameworkAdapter


def adapter(name: FrameworkName) -> FrameworkAdapter:
    """The adapter of the framework `name`; raises where this environment lacks the framework."""
    try:
        module = importlib.import_module(f"chimera_host.frameworks.{name}")
    except ImportError as error:
        raise AgentLoadError(
            f"this environment can't run {name}: {error}",
            next_step=f"make its environment with `chimera runtime install {name}`",
        ) from error
    return cast(FrameworkAdapter, module.Adapter())
