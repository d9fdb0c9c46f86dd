"""Add requests for storage commitment, and when an instance was committed."""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "commitments",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("transaction_uid", TEXT, nullable=False),
        sa.Column("repetition", sa.BigInteger(), nullable=False),
        sa.Column("ae_title", TEXT, nullable=False),
        sa.Column("referenced", TEXT, nullable=False),
        sa.Column("failure_reasons", TEXT),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("not_before", TIME, nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("error", TEXT),
        sa.Column("requested_at", TIME, nullable=False),
        sa.Column("finished_at", TIME),
        sa.UniqueConstraint("transaction_uid", "repetition"),
    )
    op.create_index("ix_commitments_due", "commitments", ["state", "not_before"])
    op.add_column("instances", sa.Column("committed_at", TIME))


def downgrade() -> None:
    op.drop_column("instances", "committed_at")
    op.drop_table("commitments")
