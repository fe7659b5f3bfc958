"""Tenants' delivery policies: one row each, with a version that whoever writes has seen."""

import msgspec
from sqlalchemy import Connection, select

from chimera.adapters.storage.database import insert_into
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.schema.delivery import delivery_policy as table
from chimera.agents.catalogue import ChangedMeanwhile
from chimera.delivery.policy import DeliveryPolicy
from chimera.delivery.ports import StoredDeliveryPolicy
from chimera.events.catalogue import DeliveryPolicyChanged
from chimera.events.model import Fact
from chimera.immune.audit.model import AuditRecord
from chimera.kernel.ids import new_id

_POLICY = msgspec.json.Decoder(DeliveryPolicy)
DEFAULT = StoredDeliveryPolicy(policy=DeliveryPolicy(), version=0, updated=0.0, by="")


def read_policy_row(connection: Connection, tenant: str, *, lock: bool = False) -> StoredDeliveryPolicy:
    """The tenant's policy, or the default."""
    query = select(table).where(table.c.tenant == tenant)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        return DEFAULT
    return StoredDeliveryPolicy(policy=_POLICY.decode(row.policy), version=row.version, updated=row.updated, by=row.by)


def put_policy(
    connection: Connection, tenant: str, policy: DeliveryPolicy, *, expect: int | None, by: str, now: float
) -> int:
    """Keep a policy; its version."""
    before = read_policy_row(connection, tenant, lock=True)
    if expect is not None and expect != before.version:
        raise ChangedMeanwhile(
            f"the delivery policy has version {before.version}, and not {expect} any more",
            next_step="look again: `chimera change policy show`",
        )
    version = before.version + 1
    row = {"policy": msgspec.json.encode(policy), "version": version, "updated": now, "by": by}
    put = insert_into(connection, table).values(tenant=tenant, **row)
    put = put.on_conflict_do_update(index_elements=["tenant"], set_=row, where=table.c.version == before.version)
    if connection.execute(put).rowcount != 1:
        raise ChangedMeanwhile("the delivery policy was changed meanwhile", next_step="look again, then put it")
    freezes = tuple(one.name for one in policy.freezes)
    data = DeliveryPolicyChanged(version=version, direct=policy.direct, freezes=freezes, by=by)
    record = journal(connection)
    record.fact(Fact(id=new_id("evt"), type="delivery.changed", tenant=tenant, subject="delivery", at=now, data=data))
    approvals, replay = msgspec.to_builtins(policy.approvals), msgspec.to_builtins(policy.replay)
    record.audit(
        AuditRecord(
            at=now,
            tenant=tenant,
            actor=by,
            action="delivery.changed",
            resource="delivery",
            outcome="done",
            detail={
                "version": version,
                "direct": policy.direct,
                "freezes": list(freezes),
                "approvals": approvals,
                "replay": replay,
            },
        )
    )
    return version
