"""What the database refuses, as problems that say what to do."""

from chimera_host.contract.problem import ProblemError


class StorageError(ProblemError):
    """The database could not be used."""

    code = "storage"
    status = 503
    title = "The database failed"


class UnstorableText(StorageError):
    """A text holds the character NUL, which PostgreSQL takes in none."""

    code = "unstorable-text"
    status = 400
    title = "The text can't be stored"


class StorageFull(StorageError):
    """There is no room to write; what only reads goes on."""

    code = "storage-full"
    status = 507
    title = "There is no room for what is to be stored"


class StorageBusy(StorageError):
    """Somebody else holds what this needs, and did not let go in time."""

    code = "storage-busy"
    title = "The database is busy"


class StorageAway(StorageError):
    """The database's server can't be reached."""

    code = "storage-away"
    title = "The database does not answer"


class StorageUnsure(StorageError):
    """The server went away between the commit and its answer: what was asked for may be done, or not."""

    code = "storage-unsure"
    title = "It is not known whether this was stored"


class NewerDatabase(StorageError):
    """The database was written by a newer release."""

    code = "newer-database"
    title = "The database is newer than this release"


class DatabaseMoved(StorageError):
    """The database was moved to another, and is kept as it was then."""

    code = "database-moved"
    status = 409
    title = "The database was moved"


class DatabaseMoving(StorageError):
    """A move to this database was begun and not finished."""

    code = "database-moving"
    status = 409
    title = "A move to this database is not finished"


def closing_down() -> StorageError:
    """The refusal of work that comes while the database is being closed."""
    return StorageError("the database is being closed", next_step="try again", retry_after=1.0)


def locked(words: str) -> StorageBusy:
    """Somebody else held a lock for too long."""
    return StorageBusy(f"the database is locked: {words}", next_step="try again", retry_after=1.0)


def full(words: str) -> StorageFull:
    """The disk or the database's quota is full."""
    return StorageFull(
        f"the disk is full: {words}", next_step="make room on the disk; reads go on meanwhile", retry_after=30.0
    )


def away(words: str) -> StorageAway:
    """The server can't be reached, or went away."""
    return StorageAway(
        f"the database does not answer: {words}", next_step="see that its server runs, then try again", retry_after=2.0
    )


def unsure(words: str) -> StorageUnsure:
    """The server went away while it committed."""
    return StorageUnsure(
        f"the database went away while it stored this: {words}",
        next_step="look whether it was done; repeating it with the same Idempotency-Key is safe",
        retry_after=2.0,
    )


def unstorable() -> UnstorableText:
    """A text that is no text to PostgreSQL."""
    return UnstorableText("a text holds the character NUL (U+0000)", next_step="leave it out")


def failed(words: str) -> StorageError:
    """Anything else."""
    return StorageError(f"the database failed: {words}", next_step="see the log; `chimera doctor` checks the database")
