"""How the tables came to be what they are: one file under `versions` for every change."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from kinetograph.errors import StoreError

HERE = Path(__file__).parent


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the tables up to a revision, within the transaction of `connection`. Raises StoreError for newer ones."""
    config = _config(connection)
    found = MigrationContext.configure(connection).get_current_revision()
    script = ScriptDirectory.from_config(config)
    if found == script.get_current_head() and revision == "head":
        return
    if found is not None and found not in {known.revision for known in script.walk_revisions()}:
        message = f"the database has the tables of a newer version ({found})"
        raise StoreError(message, hint="update kinetograph here, or use another --database")
    command.upgrade(config, revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Take the tables back to an earlier revision, "base" for none. Raises StoreError where jobs would be lost."""
    if revision == "base" and inspect(connection).has_table("jobs"):
        count = connection.scalar(text("SELECT count(*) FROM jobs WHERE state <> 'deleted'"))
        if count:
            raise StoreError(f"{count} jobs would be lost with the tables", hint="delete them, or back them up, first")
    command.downgrade(_config(connection), revision)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
