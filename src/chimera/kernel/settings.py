"""Settings: frozen dataclasses, one group for each concern, read from one mapping in one place.

Each context declares its group beside its code with `setting(...)`, which carries the unit and the consequence of a
change; the reference page is made from them. `load_group` turns the text of a file or of environment variables into
the group's types and refuses what it doesn't know, all faults at once. The text is a TOML file's in the home folder,
overridden by variables: `CHIMERA_NODE__MAX_HOSTS=4` sets `max_hosts` of the group `node`. The environment is handed in.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

G = TypeVar("G")

FILE_NAME = "settings.toml"
NOT_SETTINGS = ("CHIMERA_SECRET_", "CHIMERA_RUNTIME_")

_MISSING = dataclasses.MISSING


class SettingsError(ValueError):
    """A setting is unknown or has a value that it can't have; `problems` lists all of them."""

    def __init__(self, problems: list[str]) -> None:
        """Keep every problem found."""
        super().__init__("; ".join(problems))
        self.problems = problems


def setting(
    default: Any, doc: str, *, unit: str = "", minimum: float | None = None, maximum: float | None = None
) -> Any:
    """A field of a settings group: its default, what it does, its unit and bounds."""
    metadata = {"doc": doc, "unit": unit, "minimum": minimum, "maximum": maximum}
    if isinstance(default, (dict, list, set)):
        raise TypeError("a setting's default must be immutable; use a tuple or a factory")
    return dataclasses.field(default=default, metadata=metadata)


def read_groups(file: Path, environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Every group's values by name, as `file` (which need not be there) and then `environ` give them; not checked.

    Raises `SettingsError` where the file is no TOML, or holds something else than tables.
    """
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{file}: {error}"]) from None
    if broken := sorted(name for name, values in data.items() if not isinstance(values, dict)):
        raise SettingsError([f"{file}: {name}: a group is a table, such as [{name}]" for name in broken])
    for group, values in _of_environment(environ).items():
        data.setdefault(group, {}).update(values)
    return data


def of_file(file: Path, environ: Mapping[str, str], group: str) -> frozenset[str]:
    """The fields of `group` whose value is from `file`: it names them, and no variable of `environ` does."""
    return frozenset(read_groups(file, {}).get(group, {})) - _of_environment(environ).get(group, {}).keys()


def _of_environment(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, value in environ.items():
        group, separator, field = name.removeprefix("CHIMERA_").lower().partition("__")
        # Credentials and interpreters are named by variables too, with names of their owners' choosing.
        if name.startswith("CHIMERA_") and separator and not name.startswith(NOT_SETTINGS):
            found.setdefault(group, {})[field] = value
    return found


def load_group(group: type[G], values: Mapping[str, Any], *, where: str) -> G:
    """Make `group` from `values`; `where` names their origin in errors. Raises `SettingsError` with all faults."""
    hints = typing.get_type_hints(group)
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, group))}
    problems: list[str] = []
    arguments: dict[str, Any] = {}
    for name, raw in values.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(fields))}"
            problems.append(f"{where}: unknown setting {name!r}{hint}")
            continue
        try:
            value = _convert(raw, hints[name])
        except ValueError as error:
            problems.append(f"{where}: {name}: {error}")
            continue
        problem = _out_of_bounds(value, fields[name])
        if problem:
            problems.append(f"{where}: {name}: {problem}")
        arguments[name] = value
    for name, field in fields.items():
        required = field.default is _MISSING and field.default_factory is _MISSING
        if required and name not in arguments and name not in values:
            problems.append(f"{where}: {name} is required")
    if problems:
        raise SettingsError(problems)
    return group(**arguments)


def _out_of_bounds(value: Any, field: dataclasses.Field[Any]) -> str | None:
    minimum, maximum = field.metadata.get("minimum"), field.metadata.get("maximum")
    if isinstance(value, tuple):
        return next((problem for item in value if (problem := _out_of_bounds(item, field))), None)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    if minimum is not None and value < minimum:
        return f"{value} is below {minimum}"
    if maximum is not None and value > maximum:
        return f"{value} is above {maximum}"
    return None


def _convert(raw: Any, hint: Any) -> Any:
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if raw is None and type(None) in get_args(hint):
            return None
        return _convert(raw, next(option for option in get_args(hint) if option is not type(None)))
    if origin is typing.Literal:
        if raw in get_args(hint):
            return raw
        raise ValueError(f"{raw!r} is not one of {', '.join(map(repr, get_args(hint)))}")
    if origin is tuple:
        items = [part.strip() for part in raw.split(",") if part.strip()] if isinstance(raw, str) else list(raw)
        return tuple(_convert(item, get_args(hint)[0]) for item in items)
    if hint is bool:
        return _boolean(raw)
    if hint in (int, float):
        return _number(raw, hint)
    if hint is str:
        if isinstance(raw, str):
            return raw
        raise ValueError(f"{raw!r} is not text")
    raise ValueError(f"a value of type {hint} can't be set")


def _boolean(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in ("true", "1", "false", "0"):
        return raw.lower() in ("true", "1")
    raise ValueError(f"{raw!r} is not true or false")


def _number(raw: Any, hint: type[int] | type[float]) -> int | float:
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        raise ValueError(f"{raw!r} is not a number")
    try:
        value = hint(raw)
    except ValueError:
        raise ValueError(f"{raw!r} is not {'a whole number' if hint is int else 'a number'}") from None
    if hint is int and isinstance(raw, float) and raw != value:
        raise ValueError(f"{raw!r} is not a whole number")
    return value
