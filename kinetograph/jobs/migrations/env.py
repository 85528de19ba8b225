"""Alembic runs this: the connection, and its transaction, belong to whoever asked for the change."""

from alembic import context

from kinetograph.jobs.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
