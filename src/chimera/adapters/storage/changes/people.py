"""Who stands behind a key: the user who made it, and so on up to whoever made the first one.

A key that the home's own key made, or the platform, stands for itself: those hand out the first keys to people, and
whoever holds them owns the home anyway.

A key that was removed since it made another leaves nobody behind that one who could be named: such a key stands for no
person, or its owner could approve by it what they made themselves.
"""

from sqlalchemy import Connection, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.schema.identity import api_key

_KEY = "key:"
_HANDS_OUT = ("key:bootstrap", "system:")
_MOST = 100
_LOST = "removed:"


class StoredPeople:
    """The port `People` on the keys of a database."""

    def __init__(self, database: Database) -> None:
        """Look keys up in `database`."""
        self._database = database

    async def person_of(self, actor: str) -> str:
        """See `People`."""
        if not actor.startswith(_KEY):
            return actor
        return await self._database.read(lambda connection: _person_of(connection, actor))


def _person_of(connection: Connection, actor: str) -> str:
    for steps in range(_MOST):
        key = actor.removeprefix(_KEY)
        if key == actor:
            return actor
        maker = connection.execute(select(api_key.c.created_by).where(api_key.c.id == key)).scalar()
        if maker is None and steps:
            return f"{_LOST}{key}"
        if maker is None or maker.startswith(_HANDS_OUT):
            return actor
        actor = maker
    return actor
