"""Webhooks of tasks that were removed: how far the journal may tell of them."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the column, with the journal's last place where the task is gone already, and the index."""
    op.add_column("task_webhook", sa.Column("gone", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE task_webhook SET gone = (SELECT event_seq FROM journal_head) WHERE NOT EXISTS "
        "(SELECT 1 FROM task WHERE task.tenant = task_webhook.tenant AND task.task = task_webhook.task)"
    )
    op.create_index(
        "ix_task_webhook_gone",
        "task_webhook",
        ["gone"],
        unique=False,
        sqlite_where=sa.text("gone IS NOT NULL"),
        postgresql_where=sa.text("gone IS NOT NULL"),
    )
