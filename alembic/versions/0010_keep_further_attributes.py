"""Keep further attributes of patients, studies, series and instances, and descriptions without case and accents.

What is there already has none of the further attributes; `thinfilm reindex` reads them out of the objects.
"""

import sqlalchemy as sa
from alembic import op

from thinfilm_gateway.index.folding import fold

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

TABLES = ("patients", "study_patients", "studies", "series", "instances")
DESCRIPTIONS = (("studies", "study_description"), ("series", "series_description"))
ROWS_AT_A_TIME = 1000


def upgrade() -> None:
    for table in TABLES:
        for name in ("attributes", "attributes_folded"):
            op.add_column(table, sa.Column(name, TEXT, nullable=False, server_default="{}"))
    for table, name in DESCRIPTIONS:
        op.add_column(table, sa.Column(f"{name}_folded", TEXT, nullable=False, server_default=""))
        _fold(op.get_bind(), table, name)


def _fold(connection: sa.Connection, table: str, name: str) -> None:
    page = sa.text(
        f"SELECT id, {name} AS value FROM {table} WHERE id > :last AND {name} <> '' "  # noqa: S608
        f"ORDER BY id LIMIT {ROWS_AT_A_TIME}"
    )
    update = sa.text(f"UPDATE {table} SET {name}_folded = :folded WHERE id = :id")  # noqa: S608
    last = 0
    while rows := connection.execute(page, {"last": last}).all():
        last = rows[-1].id
        connection.execute(update, [{"id": row.id, "folded": fold(row.value)} for row in rows])


def downgrade() -> None:
    for table, name in DESCRIPTIONS:
        op.drop_column(table, f"{name}_folded")
    for table in TABLES:
        for name in ("attributes", "attributes_folded"):
            op.drop_column(table, name)
