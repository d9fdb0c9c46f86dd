"""Runs the migrations on the connection that Database.upgrade() gives, or on `alembic -x url=...` while writing one."""

from alembic import context
from sqlalchemy import Connection

from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.models import Base


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transactional_ddl=True,  # SQLite too: our connections begin transactions themselves
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    database = Database(context.get_x_argument(as_dictionary=True)["url"])
    with database.engine.begin() as own:
        migrate(own)
    database.dispose()
