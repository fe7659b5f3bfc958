"""Importing an agent's code so that agents don't see each other's modules.

Two agents may both bring a `helpers.py`, or two revisions of it. Each bundle is therefore imported as a package of its
own, `chimera_bundle_<digest>`, and its modules get a `__import__` that looks among the bundle's own top-level names
first: `import helpers` finds the bundle's module, whatever else is loaded, and everything else is found as usual.
`sys.path` is never changed. One thing differs from a plain script: `importlib.import_module("helpers")` with a literal
name knows nothing of the bundle; `importlib.import_module("." + name, __package__)` works.
"""

import builtins
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from pathlib import Path
from types import ModuleType
from typing import Any

from chimera_host.errors import AgentLoadError

PREFIX = "chimera_bundle_"


class _Loader(SourceFileLoader):
    """Gives a module its bundle's `__import__` before its code runs, and leaves nothing compiled in the bundle."""

    def exec_module(self, module: ModuleType) -> None:
        package = module.__name__.partition(".")[0]
        bundle = sys.modules.get(package)
        if bundle is not None:
            vars(module)["__builtins__"] = vars(bundle)["__bundle_builtins__"]
        super().exec_module(module)

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Keep no compiled file: a bundle's folder is what its digest says, and nothing else."""


class _Finder:
    """Finds the modules of bundles, and only those."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(PREFIX) or path is None:
            return None
        for folder in path:
            finder = FileFinder(folder, (ExtensionFileLoader, EXTENSION_SUFFIXES), (_Loader, SOURCE_SUFFIXES))
            spec = finder.find_spec(name, target)
            if spec is not None:
                return spec
        return None


class BundleCode:
    """The importable code of one unpacked bundle. Agents of the same bundle share its modules."""

    def __init__(self, digest: str, folder: Path) -> None:
        """Make the package of the bundle `digest`, unpacked in `folder`; nothing of it runs yet."""
        self.folder = folder
        self.package = PREFIX + digest.removeprefix("sha256:")[:24]
        self.users = 0
        self._own = _top_level(folder)
        package = ModuleType(self.package, f"The modules of the bundle {digest}.")
        package.__path__ = [str(folder)]
        package.__package__ = self.package
        package.__spec__ = ModuleSpec(self.package, None, is_package=True)
        vars(package)["__bundle_builtins__"] = {**vars(builtins), "__import__": self._import}
        sys.modules[self.package] = package
        if not any(finder is _Finder for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder)

    def resolve(self, path: str) -> Callable[..., Any]:
        """What `module:name` names in this bundle; runs the module's code if it wasn't imported yet."""
        module_name, _, attribute = path.partition(":")
        if not attribute or module_name.partition(".")[0] not in self._own:
            known = ", ".join(sorted(self._own)) or "none"
            raise AgentLoadError(
                f"{path!r} names no module of the source folder (its modules: {known})",
                next_step="write it as module:name, the module as a path from the source folder with dots",
            )
        try:
            module = importlib.import_module(f"{self.package}.{module_name}")
        except Exception as error:
            raise AgentLoadError(
                f"importing {module_name!r} raised {type(error).__name__}: {error}",
                next_step="run the module by itself in the agent's runtime to see the whole error",
            ) from error
        found = getattr(module, attribute, None)
        if not callable(found):
            what = "is not callable" if found is not None else "does not exist"
            raise AgentLoadError(f"{attribute!r} in module {module_name!r} {what}")
        return found  # type: ignore[no-any-return]

    def forget(self) -> None:
        """Drop the modules; those who still hold one of their objects keep it."""
        for name in [name for name in sys.modules if name == self.package or name.startswith(self.package + ".")]:
            del sys.modules[name]

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or top not in self._own:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        inner = f"{self.package}.{name}"
        if fromlist:
            return builtins.__import__(inner, globals, locals, fromlist, 0)
        importlib.import_module(inner)
        return sys.modules[f"{self.package}.{top}"]


def _top_level(folder: Path) -> frozenset[str]:
    names = set()
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name.isidentifier():
            names.add(entry.name)
        elif entry.is_file():
            for suffix in (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES):
                stem = entry.name.removesuffix(suffix)
                if stem != entry.name and stem.isidentifier():
                    names.add(stem)
    return frozenset(names)
