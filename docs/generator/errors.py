"""The errors page: every code that the API, the hosts and the command line can say, found by looking at the code.

An error is a subclass of `ProblemError`; its code is stable, and one code has one HTTP status wherever it is raised.
All modules of both packages are imported to find them, but for the adapters of frameworks that this environment lacks.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import chimera
import chimera_host
from chimera.entrypoints.cli.failing import exit_code
from chimera_host.contract.problem import PROBLEM_TYPE_PREFIX, ProblemError, RemoteProblem
from docs.generator.tables import code, head, table

RUN_AT_IMPORT = ("__main__", "env")
"""Modules that do something when they are imported: programs, and the migrations' environment."""

EXIT_CODES = (
    (0, "All went well."),
    (1, "`chimera doctor` found something broken; `chimera scan` found something that fails."),
    (2, "`chimera scan` could not judge something."),
    (64, "The command was used wrongly."),
    (65, "What was given is not valid, or names something that isn't there."),
    (69, "What is needed doesn't answer, or isn't here."),
    (70, "Something went wrong inside."),
    (75, "It may go well later: busy, over budget, cancelled."),
    (77, "Not allowed."),
    (78, "The settings are wrong."),
    (130, "Ctrl-C."),
)


@dataclass
class Code:
    """One code, with all that is said of it."""

    code: str
    statuses: set[int] = field(default_factory=set)
    titles: list[str] = field(default_factory=list)
    meanings: list[str] = field(default_factory=list)
    raised_by: set[str] = field(default_factory=set)


def codes() -> list[Code]:
    """Every code, in order."""
    found: dict[str, Code] = {}
    for error in sorted(_errors(), key=lambda kind: (kind.__module__, kind.__qualname__)):
        entry = found.setdefault(error.code, Code(error.code))
        entry.statuses.add(error.status)
        entry.raised_by.add(_part(error.__module__))
        if error.title != ProblemError.title and error.title not in entry.titles:
            entry.titles.append(error.title)
        if "code" in vars(error):
            meaning = inspect.getdoc(error) or ""
            summary = " ".join(meaning.partition("\n\n")[0].split())
            if summary not in entry.meanings:
                entry.meanings.append(summary)
    return [found[name] for name in sorted(found)]


def page() -> str:
    """The whole page."""
    parts = [head("Error codes"), _INTRODUCTION]
    rows = []
    for one in codes():
        status = min(one.statuses)
        title, meaning = " / ".join(one.titles), " Or: ".join(one.meanings)
        if one.code == ProblemError.code:
            title = ProblemError.title
            meaning = "Something went wrong that nobody foresaw; the log of the process has it whole."
        said_by = ", ".join(sorted(one.raised_by))
        rows.append((code(one.code), str(status), str(exit_code(status)), title, meaning, said_by))
    parts.append(table(("code", "status", "exit code", "title", "meaning", "said by"), rows))
    parts.append("## Exit codes of the command line\n")
    parts.append(table(("exit code", "meaning"), ((str(number), text) for number, text in EXIT_CODES)))
    return "\n".join(parts)


def _errors() -> Iterator[type[ProblemError]]:
    for package in (chimera, chimera_host):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".", onerror=lambda _: None):
            if module.name.rpartition(".")[2] in RUN_AT_IMPORT or ".versions." in module.name:
                continue
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] in ("chimera", "chimera_host"):
                    raise
    waiting: list[type[ProblemError]] = [ProblemError]
    while waiting:
        kind = waiting.pop()
        if kind.__module__.partition(".")[0] in ("chimera", "chimera_host") and kind is not RemoteProblem:
            yield kind
        waiting.extend(kind.__subclasses__())


def _part(module: str) -> str:
    package, _, rest = module.partition(".")
    if package == "chimera_host":
        return "all" if rest.startswith("contract") else "host"
    context, _, inner = rest.partition(".")
    parts = {
        "agents": "control plane or command line",
        "platform": "node agent",
        "events": "gateway or control plane",
        "delivery": "control plane or command line",
        "immune": "gateway or command line",
        "jaegis": "control plane or command line",
        "gateway": "gateway",
        "adapters": "storage" if inner.startswith("storage") else "node agent",
        "bootstrap": "`chimera up`",
    }
    if context == "entrypoints":
        names = {"cli": "command line", "control_plane": "control plane", "gateway": "gateway", "node": "node agent"}
        return names[inner.partition(".")[0]]
    return parts[context]


_INTRODUCTION = f"""\
Every error is a problem document (RFC 9457, `application/problem+json`): `code` is stable and made for programs,
`detail` says what is wrong here, `next_step` what to do about it, `agent` and `request` whom it concerns, and `errors`
lists single faults with their places. `type` is `{PROBLEM_TYPE_PREFIX}` and the code. An error that passes by itself
has `retry_after` in seconds, and the answer a `Retry-After` header. Answers to OpenAI clients also hold the `error`
object that those look for, with the same code.

The command line prints `detail` and `next_step` on standard error and ends with an exit code.
"""
