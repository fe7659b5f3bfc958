"""What can be wrong with a definition: single faults with their place, and the error that carries all of them."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from chimera_host.contract.problem import ProblemError


class Fault(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong: where (file, line and column from 1, path of the field), what, and what is allowed."""

    message: str
    path: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None
    allowed: str | None = None
    suggestion: str | None = None
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        """One line: `file:line:column: path: message; allowed: …; did you mean …?`."""
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        parts = [part for part in (place, self.path, self.message) if part]
        text = ": ".join(parts)
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        if self.suggestion:
            text += f"; did you mean {self.suggestion!r}?"
        return text


class AgentsError(ProblemError):
    """Something is wrong with an agent's definition."""

    title = "The definition is not valid"


class InvalidDefinition(AgentsError):
    """A definition breaks the schema or a rule; `faults` lists every problem found."""

    code = "invalid-definition"
    status = 422

    def __init__(self, faults: Sequence[Fault]) -> None:
        """Carry every fault."""
        first = str(faults[0]) if faults else "no fault was named"
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        errors: list[dict[str, Any]] = [msgspec.to_builtins(fault) for fault in faults[:1000]]
        super().__init__(
            first + more, next_step="correct the places named; `chimera validate` checks a file", errors=errors
        )
        self.faults = list(faults)


class UnreadableText(AgentsError):
    """The bytes are not a YAML text at all: size, encoding or syntax."""

    code = "unreadable-definition"
    status = 400
    title = "The definition can't be read"

    def __init__(self, fault: Fault) -> None:
        """Carry the one fault."""
        super().__init__(str(fault), next_step="write it as UTF-8 YAML 1.2", errors=[msgspec.to_builtins(fault)])
        self.fault = fault


class BadArchive(AgentsError):
    """An archive or source folder breaks a bound."""

    code = "bad-archive"
    status = 422
    title = "The archive can't be taken"


class UnreadableFile(AgentsError):
    """A file or folder that was named can't be opened."""

    code = "unreadable-file"
    status = 400
    title = "A file can't be read"


class NoDefinitions(AgentsError):
    """Nothing that was named holds a definition."""

    code = "no-definitions"
    status = 404
    title = "There is no definition"


class NotExportable(AgentsError):
    """The agent needs what only the platform gives, so it can't leave it."""

    code = "not-exportable"
    status = 422
    title = "The agent can't be exported"

    def __init__(self, agent: str, reasons: Sequence[tuple[str, str]]) -> None:
        """Carry every reason, each with what to do."""
        faults = [Fault(message=why, allowed=step) for why, step in reasons]
        first = f"agent {agent}: {reasons[0][0]}"
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        errors: list[dict[str, Any]] = [msgspec.to_builtins(fault) for fault in faults]
        super().__init__(first + more, next_step=reasons[0][1], errors=errors, agent=agent)
