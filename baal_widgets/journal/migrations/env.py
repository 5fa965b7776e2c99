"""What Alembic runs: the steps, on the connection that it was given and within its transaction."""

from alembic import context

from baal_widgets.journal.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
