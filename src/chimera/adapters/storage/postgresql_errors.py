"""What PostgreSQL and its driver refuse, as this package's errors: by SQLSTATE, or by how the connection ended."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from chimera.adapters.storage.errors import StorageError, away, failed, full, locked, unstorable


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise what the server or the driver refuses as `StorageError`, with its words and what to do."""
    try:
        yield
    except DBAPIError as error:
        raise storage_error(error.orig or error) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.ClientConfigurationError, OSError) as error:
        raise storage_error(error) from error
    except PendingRollbackError as error:  # a statement before this one found the connection lost
        raise away("the connection was lost") from error
    except asyncpg.InternalClientError as error:
        # The server has said that it ends the connection and not closed it yet; nothing was sent to it.
        raise away(str(error)) from error
    except (TimeoutError, PoolTimeout) as error:
        raise away(str(error) or "no answer in time") from error


def storage_error(error: BaseException) -> StorageError:
    """The server's error as ours, by its SQLSTATE; what passes by itself says when to come back."""
    words = str(error).partition("\n")[0].removeprefix("<class 'asyncpg.exceptions.").replace("'>:", ":")
    state = str(getattr(error, "sqlstate", None) or "")
    if state == "53100" or "No space left" in words:
        return full(words)
    if state in ("22021", "22P05"):
        return unstorable()
    if state in ("40001", "40P01", "55P03", "57014"):
        return locked(words)
    if state.startswith(("08", "57P", "53")):
        return away(words)
    if state[:2] in ("28", "3D"):
        return StorageError(
            f"the database's server refuses: {words}", next_step="see the user, password and name in node.database"
        )
    if not state and _is_gone(error):
        return away(words)
    return failed(words)


def _is_gone(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
            return True
        error = error.__cause__
    return False
