"""What backups, restores and moves refuse."""

import errno
from pathlib import Path

from chimera.adapters.storage.errors import StorageError, StorageFull


class InvalidBackup(StorageError):
    """The file is no backup, or no whole one."""

    code = "invalid-backup"
    status = 422
    title = "The backup is damaged or none"


class UntrustedBackup(InvalidBackup):
    """The backup is not signed by a key that is trusted."""

    code = "untrusted-backup"
    title = "The backup is not signed by a trusted key"


class BackupExists(StorageError):
    """Something is at the place where the backup should go."""

    code = "backup-exists"
    status = 409
    title = "There is a file already"


class BackupFailed(StorageError):
    """The backup's file can't be read or written."""

    code = "backup-failed"
    title = "The backup's file failed"


class NotEmpty(StorageError):
    """The database holds something already."""

    code = "database-not-empty"
    status = 409
    title = "The database is not empty"


class InUse(StorageError):
    """Processes of the platform use the database."""

    code = "database-in-use"
    status = 409
    title = "The database is in use"


class MoveFailed(StorageError):
    """A database could not be moved."""

    code = "move-failed"
    status = 409
    title = "The database can't be moved"


def file_failed(file: Path, error: OSError) -> StorageError:
    """A file's error; a full disk is told as one."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFull(
            f"{file}: {error.strerror}",
            next_step="make room, or give a place on another disk; nothing is left half done",
        )
    return BackupFailed(f"{file}: {error.strerror or error}", next_step="see that it can be read and written")
