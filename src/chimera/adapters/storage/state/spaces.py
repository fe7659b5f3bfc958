"""Shared spaces in the database (`SpaceStore`).

Whoever writes locks the space's row first, so writes to a space happen one after another, whatever keys they touch, and
a write of several keys is seen whole or not at all. Spaces are written independently of each other.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import asdict, replace
from sqlalchemy import BigInteger, Connection, Integer, bindparam, delete, or_, select, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.removing import delete_keys, is_one_of
from chimera.adapters.storage.schema.state import space, space_entry
from chimera.adapters.storage.state.answers import AnswerStorage
from chimera.adapters.storage.state.runs import RunStorage
from chimera.adapters.storage.state.telling import note, tell
from chimera.gateway.errors import PayloadTooLarge
from chimera.gateway.state.errors import SpaceConflict, SpaceNotFound
from chimera.gateway.state.model import SpaceEntry, StoredRun, StoredSpace
from chimera.gateway.state.spaces_rules import Declared, Held, apply_write, check_access
from chimera_host.contract.state import SharedWrite

_DECLARED = msgspec.json.Decoder(Declared)
_ENTRIES = msgspec.msgpack.Decoder(tuple[int, tuple[SpaceEntry, ...]])
_OVERHEAD = 100
"""Bytes that a key takes beside its name and value, about."""

Once: TypeAlias = tuple[StoredRun, str, bytes, float]


class SpaceStorage:
    """The store of spaces on one database."""

    def __init__(
        self, database: Database, runs: RunStorage, answers: AnswerStorage, *, most_bytes: int, most_keys: int
    ) -> None:
        """A space may hold `most_bytes` in `most_keys`; `runs` and `answers` see to it that a step's write is once."""
        self._database = database
        self._runs = runs
        self._answers = answers
        self._most_bytes = most_bytes
        self._most_keys = most_keys
        mine = (space.c.tenant == bindparam("the_tenant")) & (space.c.space == bindparam("the_space"))
        self._find = database.prepared(select(space).where(mine))
        self._lock = database.prepared(select(space).where(mine).with_for_update())
        grown: dict[str, Any] = {
            name: bindparam(f"new_{name}") for name in ("version", "bytes", "entries", "updated", "expires")
        }
        self._grow = database.prepared(update(space).where(mine).values(grown))
        its = (
            (space_entry.c.tenant == bindparam("the_tenant"))
            & (space_entry.c.space == bindparam("the_space"))
            & (space_entry.c.key == bindparam("the_key"))
        )
        self._entry = database.prepared(select(*_ENTRY, space_entry.c.bytes).where(its))
        self._drop = database.prepared(delete(space_entry).where(its))
        self._put_entry = database.prepared_insert(
            space_entry, database.upsert(space_entry, ["tenant", "space", "key"])
        )

    async def space(self, tenant: str, space: str) -> StoredSpace | None:
        """See `SpaceStore`."""
        return await self._database.read(lambda connection: _load(connection, tenant, space, lock=False))

    async def spaces(self, tenant: str, after: str, limit: int, now: float) -> Sequence[StoredSpace]:
        """See `SpaceStore`."""
        columns = space.c
        lives = or_(columns.expires.is_(None), columns.expires > now)
        query = select(space).where((columns.tenant == tenant) & (columns.space > after) & lives)

        def read(connection: Connection) -> list[StoredSpace]:
            return [_space(row) for row in connection.execute(query.order_by(columns.space).limit(limit)).mappings()]

        return await self._database.read(read)

    async def put_space(self, space: StoredSpace, by: str) -> StoredSpace:
        """See `SpaceStore`."""
        return await self._database.write(lambda connection: self._put(connection, space, by))

    async def delete_space(self, tenant: str, space: str, by: str) -> bool:
        """See `SpaceStore`."""

        def job(connection: Connection) -> bool:
            found = _load(connection, tenant, space, lock=True)
            if found is None:
                return False
            erase_space(connection, tenant, space)
            subject = f"spaces/{space}"
            now = self._database.now(connection)
            tell(connection, "space.deleted", tenant, subject, now, {"space": space, "by": by})
            note(connection, "space:write", tenant, subject, now, by, change="deleted")
            return True

        return await self._database.write(job)

    async def entries(self, tenant: str, space: str, after: str, limit: int, now: float) -> Sequence[SpaceEntry]:
        """See `SpaceStore`."""
        columns = space_entry.c
        its = (columns.tenant == tenant) & (columns.space == space) & (columns.key > after)
        query = select(*_ENTRY).where(its & or_(columns.expires.is_(None), columns.expires > now))

        def read(connection: Connection) -> list[SpaceEntry]:
            rows = connection.execute(query.order_by(columns.key).limit(limit)).mappings()
            return [SpaceEntry(**row) for row in rows]

        return await self._database.read(read)

    async def apply(
        self,
        tenant: str,
        space: str,
        *,
        writes: Sequence[SharedWrite],
        read: Sequence[str],
        agent: str | None,
        by: str,
        now: float,
        once: Once | None = None,
        hops: int = 0,
    ) -> tuple[int, Sequence[SpaceEntry]]:
        """See `SpaceStore`."""

        def job(connection: Connection) -> tuple[int, Sequence[SpaceEntry]]:
            found, declared = self._usable(connection, tenant, space, now, lock=bool(writes))
            check_access(declared, space, agent, writes=bool(writes))
            if once is not None and (before := self._before(connection, once, now)) is not None:
                return before
            version = found.version
            if writes:
                version = self._write(connection, found, declared, writes, by, now, hops)
            keys = dict.fromkeys([*(write.key for write in writes), *read])
            answer = version, [self._held(connection, tenant, space, key, now)[0] for key in sorted(keys)]
            if once is not None:
                self._remember(connection, once, answer, now)
            return answer

        if writes:
            return await self._database.write(job)
        return await self._database.read(job)

    def _put(self, connection: Connection, new: StoredSpace, by: str) -> StoredSpace:
        found = _load(connection, new.tenant, new.space, lock=True)
        if found is not None and found.expires is not None and found.expires <= new.updated:
            erase_space(connection, new.tenant, new.space)
            found = None
        if (found.version if found else 0) != new.version - 1:
            at = f"is at version {found.version}" if found else "is not there"
            raise SpaceConflict(
                f"space {new.space} {at}",
                next_step="read it again, and say the version that you change",
                errors=[{"space": new.space, "version": found.version if found else 0}],
            )
        made = replace(new, entries=found.entries, size=found.size, created=found.created) if found else new
        if found is None:
            # Two that declare a name at once: the second one's insert fails, and is told as what it is.
            if connection.execute(self._database.insert(space).on_conflict_do_nothing(), _row(made)).rowcount != 1:
                raise SpaceConflict(f"space {new.space} is being declared", next_step="read it, and go on from there")
        else:
            connection.execute(update(space).where(_is(new.tenant, new.space)).values(_row(made)))
        subject = f"spaces/{new.space}"
        what = "space.updated" if found else "space.created"
        tell(connection, what, new.tenant, subject, new.updated, {"space": new.space, "version": new.version, "by": by})
        note(connection, "space:write", new.tenant, subject, new.updated, by, change=what.partition(".")[2])
        return made

    def _write(
        self,
        connection: Connection,
        found: StoredSpace,
        declared: Declared,
        writes: Sequence[SharedWrite],
        by: str,
        now: float,
        hops: int,
    ) -> int:
        version = found.version + 1
        size, count = found.size, found.entries
        for write in writes:
            entry, before = self._held(connection, found.tenant, found.space, write.key, now)
            held = Held(version=entry.version, value=msgspec.json.decode(entry.value))
            after = apply_write(declared, held, write, version)
            size -= before or 0
            count -= 0 if before is None else 1
            if after.version == 0:
                self._drop.run(connection, the_tenant=found.tenant, the_space=found.space, the_key=write.key)
                continue
            value = msgspec.json.encode(after.value)
            taken = len(value) + len(write.key) + _OVERHEAD
            size, count = size + taken, count + 1
            made = {
                "tenant": found.tenant,
                "space": found.space,
                "key": write.key,
                "version": version,
                "value": value,
                "bytes": taken,
                "by": by,
                "updated": now,
                "expires": None if declared.entry_ttl is None else now + declared.entry_ttl,
            }
            self._put_entry.run(connection, **made)
        if size > self._most_bytes or count > self._most_keys:
            raise PayloadTooLarge(
                f"space {found.space} would hold {size} bytes in {count} keys; it may hold {self._most_bytes} bytes in "
                f"{self._most_keys} keys",
                next_step="remove keys, use several spaces, or raise state.space_bytes or state.space_keys",
            )
        expires = None if declared.ttl is None else now + declared.ttl
        self._grow.run(
            connection,
            the_tenant=found.tenant,
            the_space=found.space,
            new_version=version,
            new_bytes=size,
            new_entries=count,
            new_updated=now,
            new_expires=expires,
        )
        keys = sorted({write.key for write in writes})
        data = {"space": found.space, "version": version, "keys": keys, "by": by}
        tell(connection, "space.written", found.tenant, f"spaces/{found.space}", now, data, hops=hops)
        return version

    def _usable(
        self, connection: Connection, tenant: str, name: str, now: float, *, lock: bool
    ) -> tuple[StoredSpace, Declared]:
        row = (self._lock if lock else self._find).one(connection, the_tenant=tenant, the_space=name)
        found = None if row is None else _space(dict(zip(space.c.keys(), row, strict=True)))
        if found is None or (found.expires is not None and found.expires <= now):
            raise SpaceNotFound(
                f"there is no space {name[:128]!r}", next_step="declare it with `chimera state spaces put`, or the API"
            )
        return found, _DECLARED.decode(found.declared)

    def _held(
        self, connection: Connection, tenant: str, name: str, key: str, now: float
    ) -> tuple[SpaceEntry, int | None]:
        """A key as it stands, and the bytes of its row; an entry of version 0 where it isn't there, or has ended."""
        row = self._entry.one(connection, the_tenant=tenant, the_space=name, the_key=key)
        if row is None:
            return _absent(key), None
        *values, size = row
        found = SpaceEntry(**dict(zip(_ENTRY_NAMES, values, strict=True)))
        ended = found.expires is not None and found.expires <= now
        return _absent(key) if ended else found, size

    def _before(self, connection: Connection, once: Once, now: float) -> tuple[int, Sequence[SpaceEntry]] | None:
        run, key, digest, life = once
        self._runs.working_in(connection, run, life)
        stored = self._answers.find_in(connection, run.tenant, run.run, key, digest, now)
        return None if stored is None else _ENTRIES.decode(stored)

    def _remember(
        self, connection: Connection, once: Once, answer: tuple[int, Sequence[SpaceEntry]], now: float
    ) -> None:
        run, key, digest, life = once
        self._answers.keep_in(connection, run, key, digest, msgspec.msgpack.encode(answer), now, life)


_ENTRY = [column for column in space_entry.c if column.name not in ("tenant", "space", "bytes")]
_ENTRY_NAMES = [column.name for column in _ENTRY]


def erase_space(connection: Connection, tenant: str, name: str) -> None:
    """Remove a space with its entries."""
    for table in (space_entry, space):
        connection.execute(delete(table).where((table.c.tenant == tenant) & (table.c.space == name)))


def expire_spaces(connection: Connection, now: float, limit: int) -> int:
    """Remove spaces and keys that ended before `now`, `limit` of each at most; how many that were."""
    over = select(space.c.tenant, space.c.space).where(space.c.expires <= now).order_by(space.c.expires)
    spaces = connection.execute(over.limit(limit).with_for_update(skip_locked=True)).all()
    if spaces:
        for table in (space_entry, space):
            delete_keys(connection, (table.c.tenant, table.c.space), spaces)
    return len(spaces) + _expire_entries(connection, now, limit)


def _expire_entries(connection: Connection, now: float, limit: int) -> int:
    its = space_entry.c
    ended = select(its.tenant, its.space, its.key).where(its.expires <= now).order_by(its.expires).limit(limit)
    found = connection.execute(ended).all()
    if not found:
        return 0
    key = (space.c.tenant, space.c.space)
    names = sorted({(one.tenant, one.space) for one in found})
    # In one order, so that two who do this don't lock each other out.
    locked = select(*key).where(is_one_of(connection, key, names)).order_by(*key).with_for_update()
    connection.execute(locked).all()
    gone = delete(space_entry).where(is_one_of(connection, (its.tenant, its.space, its.key), found), its.expires <= now)
    sums: dict[tuple[str, str], list[int]] = {}
    for one in connection.execute(gone.returning(its.tenant, its.space, its.bytes)):
        sums.setdefault((one.tenant, one.space), []).append(one.bytes)
    if sums:
        connection.execute(
            _LESS,
            [
                {"its_tenant": tenant, "its_space": name, "less_bytes": sum(sizes), "less_entries": len(sizes)}
                for (tenant, name), sizes in sums.items()
            ],
        )
    return sum(len(sizes) for sizes in sums.values())


_LESS = (
    update(space)
    .where((space.c.tenant == bindparam("its_tenant")) & (space.c.space == bindparam("its_space")))
    .values(
        {
            "bytes": space.c.bytes - bindparam("less_bytes", type_=BigInteger),
            "entries": space.c.entries - bindparam("less_entries", type_=Integer),
        }
    )
)


def _load(connection: Connection, tenant: str, name: str, *, lock: bool) -> StoredSpace | None:
    query = select(space).where(_is(tenant, name))
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return None if row is None else _space(row)


def _absent(key: str) -> SpaceEntry:
    return SpaceEntry(key=key, version=0, value=b"null", by="", updated=0.0)


def _is(tenant: str, name: str) -> Any:
    return (space.c.tenant == tenant) & (space.c.space == name)


def _row(made: StoredSpace) -> dict[str, Any]:
    values = asdict(made)
    values["bytes"] = values.pop("size")
    return values


def _space(row: Any) -> StoredSpace:
    values = dict(row)
    values["size"] = values.pop("bytes")
    return StoredSpace(**values)
