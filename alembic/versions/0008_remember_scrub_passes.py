"""Remember how far the scrub has come that runs by itself, and when everything was read last."""

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "scrub_passes",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("began_at", TIME, nullable=False),
        sa.Column("last_container_pk", sa.BigInteger(), nullable=False),
        sa.Column("last_instance_pk", sa.BigInteger(), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("damages", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", TIME),
    )


def downgrade() -> None:
    op.drop_table("scrub_passes")
