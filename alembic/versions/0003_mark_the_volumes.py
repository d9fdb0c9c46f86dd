"""Remember by which mark spool and archive are known, so that an empty mount point is not taken for them."""

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "volumes",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("mark", TEXT, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("volumes")
