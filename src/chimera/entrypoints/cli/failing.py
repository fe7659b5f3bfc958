"""From whatever went wrong to words and an exit code (sysexits.h)."""

import sys

import click

from chimera.entrypoints.cli.text import clean
from chimera.kernel.settings import SettingsError
from chimera_host.contract.problem import ProblemError

USAGE, INVALID, UNAVAILABLE, INTERNAL, TRY_AGAIN, NOT_ALLOWED, SETTINGS = 64, 65, 69, 70, 75, 77, 78
SHOWN_ERRORS = 50


class NotRunning(ProblemError):
    """Nothing answers at the API's address."""

    code = "not-running"
    status = 503
    title = "Chimera does not run here"


def exit_code(status: int) -> int:
    """The exit code for an HTTP status."""
    match status:
        case 400 | 404 | 409 | 413 | 422:
            return INVALID
        case 401 | 403:
            return NOT_ALLOWED
        case 429 | 499:
            return TRY_AGAIN
        case 501 | 502 | 503 | 504:
            return UNAVAILABLE
        case _:
            return INTERNAL


def report(error: BaseException) -> int:
    """Say what is wrong and what to do, on standard error; the exit code."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.UsageError():
            error.show()
            return USAGE
        case click.Abort() | KeyboardInterrupt():
            return 130
        case click.ClickException():
            error.show()
            return error.exit_code
        case ProblemError():
            return _problem(error)
        case SettingsError():
            for problem in error.problems:
                _say(f"Error: {problem}")
            return SETTINGS
        case BrokenPipeError():
            sys.stderr.close()
            return 0
        case SystemExit():
            return error.code if isinstance(error.code, int) else INTERNAL
        case _:
            raise error


def _problem(error: ProblemError) -> int:
    _say(f"Error: {error.detail}")
    for one in error.errors[:SHOWN_ERRORS]:
        _say("  " + place(one))
    if len(error.errors) > SHOWN_ERRORS:
        _say(f"  … and {len(error.errors) - SHOWN_ERRORS} more")
    if error.next_step:
        _say(f"Next: {error.next_step}")
    return exit_code(error.status)


def place(one: dict[str, object]) -> str:
    """A fault as one line: where, what, what is allowed."""
    where = ":".join(str(one[part]) for part in ("file", "line", "column") if one.get(part) is not None)
    parts = [str(part) for part in (where, one.get("path"), one.get("message") or one.get("detail")) if part]
    text = ": ".join(parts)
    if one.get("allowed"):
        text += f"; allowed: {one['allowed']}"
    if one.get("suggestion"):
        text += f"; did you mean {one['suggestion']!r}?"
    return clean(text)


def _say(text: str) -> None:
    sys.stderr.write(clean(text) + "\n")
