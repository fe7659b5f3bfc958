"""Whether the code that a definition names is in its source folder."""

import difflib
import re
from collections.abc import Iterator, Sequence

from chimera.agents.errors import Fault
from chimera.agents.proving import expectations
from chimera.agents.spec import NODE_RUNTIME, PYTHON_RUNTIME, Definition
from chimera_host.contract.tools import FunctionTool

PYTHON_SUFFIXES = (".py", "/__init__.py")
NODE_SUFFIXES = (".mjs", ".js", ".cjs", "/index.mjs", "/index.js", ".ts", ".mts", "/index.ts")
MOST_SHOWN = 10
_EXTENSION = re.compile(r"([\w/]+)(?:\.[\w-]+)?\.(?:so|pyd)")
"""A module that was built, such as `fast.cpython-311-x86_64-linux-gnu.so`; whether it fits is known to the host."""


def missing_code(definition: Definition, files: Sequence[str]) -> Iterator[Fault]:
    """Entry points and functions whose module isn't among `files`, the paths in the source folder.

    Whether a module has the function is known when it is imported, which only a host does. What a custom image runs
    isn't known here: a module of either kind will do.
    """
    runtime = definition.specification.runtime
    node, custom = runtime != PYTHON_RUNTIME, runtime not in (PYTHON_RUNTIME, NODE_RUNTIME)
    suffixes = PYTHON_SUFFIXES + NODE_SUFFIXES if custom else NODE_SUFFIXES if node else PYTHON_SUFFIXES
    modules = {path.removesuffix(end).replace("/", ".") for path in files for end in suffixes if path.endswith(end)}
    if not node or custom:
        modules |= {built[1].replace("/", ".") for path in files if (built := _EXTENSION.fullmatch(path))}
    for path, code in _named(definition):
        module = code.partition(":")[0]
        # Node.js takes a path too, with or without its ending; Python a dotted name alone.
        spelt = {module, module.replace("/", ".")} if node else {module}
        if not (spelt & modules or (node and module in files and module.endswith(NODE_SUFFIXES))):
            near = difflib.get_close_matches(module, modules, n=1)
            yield Fault(
                path=path,
                message=f"the source folder holds no module {module!r}",
                allowed=", ".join(sorted(modules)[:MOST_SHOWN]) or f"a file {module}{suffixes[0]}",
                suggestion=f"{near[0]}:{code.partition(':')[2]}" if near else None,
            )


def _named(definition: Definition) -> Iterator[tuple[str, str]]:
    if definition.specification.entrypoint:
        yield "specification.entrypoint", definition.specification.entrypoint
    for index, tool in enumerate(definition.tools):
        if isinstance(tool, FunctionTool):
            yield f"tools[{index}].function", tool.function
    for path, expected in expectations(definition):
        if expected.check is not None:
            yield f"{path}.check", expected.check
