"""Runs the migrations on the connection that `chimera.adapters.storage.database.migrate` gives."""

from alembic import context

from chimera.adapters.storage.schema.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
