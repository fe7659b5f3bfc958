"""Deleted agents by their time; revisions, changes and bundles that nothing points to, by what they are.

What is found is read without a lock; the removal asks again. A revision that is sent meanwhile, or a bundle, counts
as made at that moment, and whoever sends it holds its row, so that the removal waits for him and then leaves it.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, LargeBinary, delete, exists, func, literal, select, tuple_

from chimera.adapters.storage.changes.ending import of_open_changes
from chimera.adapters.storage.removing import delete_keys, is_one_of
from chimera.adapters.storage.rollouts.rows import of_open_rollouts
from chimera.adapters.storage.schema.catalogue import agent, batch_item, bundle, cell, history, revision
from chimera.adapters.storage.schema.delivery import change_item
from chimera.adapters.storage.schema.rollouts import rollout_member
from chimera.adapters.storage.schema.sides import GREEN, side
from chimera.adapters.storage.sequence import hold_sequence
from chimera.adapters.storage.state.sessions import erase_agents
from chimera.adapters.storage.upkeep.shapes import Key, Searched
from chimera.platform.upkeep import rules
from chimera.platform.upkeep.model import Cursor

_AGENTS = 200
"""Agents whose past is looked at by one reading."""
_REVISIONS = 2_000
_NAMED = re.compile(rb'"bundle":"(sha256:[0-9a-f]{64})"')
_MARK = b'"bundle":"sha256:'


# -- revisions and their history -----------------------------------------------------------------------------------


def find_past(
    connection: Connection,
    now: float,
    after: Cursor,
    *,
    keep_revisions: float | None,
    keep_changes: float | None,
    last: int,
) -> tuple[list[tuple[str, str, rules.Gone]], Cursor | None]:
    """What may go of the next agents after `after` (a tenant and a name), and the last of them; None: seen all."""
    c = history.c
    agents = select(c.tenant, c.agent).distinct().order_by(c.tenant, c.agent).limit(_AGENTS)
    if after:
        agents = agents.where(tuple_(c.tenant, c.agent) > tuple_(*map(literal, after)))
    page = [tuple(row) for row in connection.execute(agents).all()]
    if not page:
        return [], None
    first, through = tuple_(*map(literal, page[0])), tuple_(*map(literal, page[-1]))
    changes: dict[Key, list[rules.Change]] = {}
    of_page = tuple_(c.tenant, c.agent).between(first, through)
    rows = select(c.tenant, c.agent, c.sequence, c.revision, c.at).where(of_page)
    for row in connection.execute(rows.order_by(c.tenant, c.agent, c.sequence)):
        change = rules.Change(sequence=row.sequence, revision=row.revision, at=row.at)
        changes.setdefault((row.tenant, row.agent), []).append(change)
    there, held = _there(connection, changes), _held(connection, first, through)
    found = []
    for key, its in changes.items():
        gone = rules.past_to_go(
            rules.Past(changes=its, there=there.get(key[0], set()), held=held.get(key[0], set())),
            now=now,
            keep_revisions=keep_revisions,
            keep_changes=keep_changes,
            last=last,
        )
        if gone.revisions or gone.changes:
            found.append((key[0], key[1], gone))
    return found, page[-1]


def past(*, keep_revisions: float | None, keep_changes: float | None, last: int) -> Searched:
    """Removes revisions that were live long ago; or, if `keep_revisions` is None, changes whose revisions are gone."""

    def find(connection: Connection, now: float, after: Cursor) -> tuple[list[Key], Cursor | None]:
        found, through = find_past(
            connection, now, after, keep_revisions=keep_revisions, keep_changes=keep_changes, last=last
        )
        if keep_revisions is not None:
            return [(tenant, digest) for tenant, _, gone in found for digest in gone.revisions], through
        return [(tenant, name, sequence) for tenant, name, gone in found for sequence in gone.changes], through

    return Searched(find=find, remove=_remove_changes if keep_revisions is None else _remove_revisions)


def _there(connection: Connection, changes: dict[Key, list[rules.Change]]) -> dict[str, set[str]]:
    """Which revisions of these changes are there, by tenant."""
    wanted: dict[str, set[str]] = {}
    for (tenant, _), its in changes.items():
        wanted.setdefault(tenant, set()).update(one.revision for one in its if one.revision is not None)
    there: dict[str, set[str]] = {}
    for tenant, digests in wanted.items():
        for some in _chunks(sorted(digests)):
            query = select(revision.c.digest).where((revision.c.tenant == tenant) & revision.c.digest.in_(some))
            there.setdefault(tenant, set()).update(connection.execute(query).scalars())
    return there


def _held(connection: Connection, first: Any, through: Any) -> dict[str, set[str]]:
    """Revisions by tenant that agents from `first` to `through`, sides, batches, or open changes of them name."""
    held: dict[str, set[str]] = {}
    a, b = agent.c, batch_item.c
    pointed = select(a.tenant, a.revision).where(tuple_(a.tenant, a.name).between(first, through))
    coming = select(b.tenant, b.revision).where(
        b.revision.is_not(None) & tuple_(b.tenant, b.name).between(first, through)
    )
    i = change_item.c
    proposed = of_open_changes().where(tuple_(i.tenant, i.agent).between(first, through))
    beside = select(side.c.tenant, side.c.revision).where(tuple_(side.c.tenant, side.c.agent).between(first, through))
    m = rollout_member.c
    rolled = of_open_rollouts().where(tuple_(m.tenant, m.agent).between(first, through))
    for query in (pointed, coming, proposed, beside, rolled):
        for tenant, digest in connection.execute(query):
            held.setdefault(tenant, set()).add(digest)
    return held


def _remove_revisions(connection: Connection, now: float, keys: Sequence[Key]) -> int:
    r = revision.c
    pointed = exists().where((agent.c.revision == r.digest) & (agent.c.tenant == r.tenant))
    coming = r.digest.in_(select(batch_item.c.revision).where(batch_item.c.revision.is_not(None)))
    open_ = of_open_changes().where((change_item.c.tenant == r.tenant) & (change_item.c.revision == r.digest)).exists()
    beside = exists().where((side.c.revision == r.digest) & (side.c.tenant == r.tenant))
    m = rollout_member.c
    rolled = of_open_rollouts().where((m.tenant == r.tenant) & (m.revision == r.digest)).exists()
    old = r.created <= now - rules.LEAST_KEPT
    count = 0
    for tenant, digests in _by_first(keys).items():
        for some in _chunks(sorted(digests)):
            its = (r.tenant == tenant) & r.digest.in_(some)
            free = (~pointed, ~coming, ~open_, ~beside, ~rolled)
            count += connection.execute(delete(revision).where(its, old, *free)).rowcount
    return count


def _remove_changes(connection: Connection, _: float, keys: Sequence[Key]) -> int:
    h = history.c
    there = exists().where((revision.c.digest == h.revision) & (revision.c.tenant == h.tenant))
    count = 0
    for some in _chunks(keys):
        its = tuple_(h.tenant, h.agent, h.sequence).in_(some)
        count += connection.execute(delete(history).where(its, ~there)).rowcount
    return count


# -- deleted agents ------------------------------------------------------------------------------------------------


def expire_agents(connection: Connection, now: float, limit: int, *, keep: float) -> int:
    """Remove agents that were deleted `keep` seconds ago, `limit` at most, with all of their past; how many.

    What one that was taken back has kept of conversations goes too, unless it is being rolled out again by now.
    Nobody changes the catalogue meanwhile: whoever applies a name again waits, and then makes a new agent of it.
    """
    query = select(agent.c.tenant, agent.c.name, agent.c.revision, agent.c.cell).where(was_deleted(now, keep))
    query = query.order_by(agent.c.updated).limit(limit)
    if not connection.execute(query.limit(1)).all():
        return 0  # and nobody waits
    hold_sequence(connection)
    found = connection.execute(query).all()
    if not found:
        return 0
    names = [(one.tenant, one.name) for one in found]
    its = is_one_of(connection, (history.c.tenant, history.c.agent), names)
    changes = connection.execute(delete(history).where(its).returning(history.c.tenant, history.c.revision)).all()
    delete_keys(connection, (agent.c.tenant, agent.c.name), names)
    of_green = is_one_of(connection, (side.c.tenant, side.c.agent), names) & (side.c.role == GREEN)
    coming = {tuple(row) for row in connection.execute(select(side.c.tenant, side.c.agent).where(of_green))}
    for tenant, some in _by_first(sorted(set(names) - coming)).items():
        erase_agents(connection, tenant, some)
    past = {(tenant, digest) for tenant, digest in changes if digest is not None}
    _remove_revisions(connection, now, sorted(past | {(one.tenant, one.revision) for one in found}))
    inhabited = exists().where(agent.c.cell == cell.c.id) | exists().where(side.c.cell == cell.c.id)
    delete_keys(connection, (cell.c.id,), sorted({(one.cell,) for one in found}), ~inhabited)
    return len(found)


def was_deleted(now: float, keep: float) -> ColumnElement[bool]:
    """Whether an agent was deleted `keep` seconds ago, or earlier."""
    return (agent.c.status == "deleted") & (agent.c.updated <= now - max(keep, rules.LEAST_KEPT))


# -- bundles -------------------------------------------------------------------------------------------------------


def bundles(*, keep: float) -> Searched:
    """Removes source bundles last sent `keep` seconds ago that no revision names."""

    def find(connection: Connection, now: float, after: Cursor) -> tuple[list[Key], Cursor | None]:
        old = select(bundle.c.tenant, bundle.c.digest).where(_sent_before(now, keep))
        candidates = {tuple(row) for row in connection.execute(old).all()}
        if candidates:
            candidates -= _named(connection)
        return sorted(candidates), None

    def remove(connection: Connection, now: float, keys: Sequence[Key]) -> int:
        count = 0
        for tenant, digests in _by_first(keys).items():
            for some in _chunks(sorted(digests)):
                its = (bundle.c.tenant == tenant) & bundle.c.digest.in_(some)
                count += connection.execute(delete(bundle).where(its, _sent_before(now, keep))).rowcount
        return count

    return Searched(find=find, remove=remove)


def _sent_before(now: float, keep: float) -> ColumnElement[bool]:
    return bundle.c.created <= now - max(keep, rules.LEAST_KEPT)


def _named(connection: Connection) -> set[Key]:
    """Tenants and digests of bundles that revisions name. Only the revisions that name one leave the database."""
    r = revision.c
    inside = func.instr if connection.dialect.name == "sqlite" else func.pg_catalog.position
    names = inside(r.canonical, literal(_MARK, LargeBinary)) > 0
    found: set[Key] = set()
    after: tuple[str, str] | None = None
    while True:
        page = select(r.digest, r.tenant, r.canonical).where(names).order_by(r.digest, r.tenant).limit(_REVISIONS)
        if after is not None:
            page = page.where(tuple_(r.digest, r.tenant) > tuple_(*map(literal, after)))
        rows = connection.execute(page).all()
        for row in rows:
            found.update((row.tenant, name.decode()) for name in _NAMED.findall(row.canonical))
        if len(rows) < _REVISIONS:
            return found
        after = (rows[-1].digest, rows[-1].tenant)


def _by_first(keys: Iterable[Key]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for first, second in keys:
        found.setdefault(first, []).append(second)
    return found


def _chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + 500] for start in range(0, len(items), 500))
