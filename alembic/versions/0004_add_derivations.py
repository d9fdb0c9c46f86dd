"""Add what lossy rules made of archived images: the map from originals to derived objects."""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "derivations",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("series_pk", ROW_ID, sa.ForeignKey("series.id"), nullable=False),
        sa.Column("original_sop_instance_uid", TEXT, nullable=False),
        sa.Column("original_sha256", TEXT, nullable=False),
        sa.Column("derived_sop_instance_uid", TEXT),
        sa.Column("derived_sha256", TEXT),
        sa.Column("codec", TEXT),
        sa.Column("setting", TEXT),
        sa.Column("ratio_allocated", sa.Double()),
        sa.Column("ratio_stored", sa.Double()),
        sa.Column("max_error", sa.BigInteger()),
        sa.Column("rmse", sa.Double()),
        sa.Column("guarded", TEXT),
        sa.Column("profile", TEXT, nullable=False),
        sa.Column("ceiling", sa.Double()),
        sa.Column("citation", TEXT),
        sa.Column("error_bound", sa.BigInteger()),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("serve", TEXT, nullable=False),
        sa.Column("decided_at", TIME, nullable=False),
        sa.Column("retire_at", TIME),
        sa.Column("retired_at", TIME),
        sa.UniqueConstraint("original_sop_instance_uid", "original_sha256"),
    )
    op.create_index("ix_derivations_series_pk", "derivations", ["series_pk"])
    op.create_index("ix_derivations_derived_sop_instance_uid", "derivations", ["derived_sop_instance_uid"])
    op.create_index(
        "ix_derivations_retire",
        "derivations",
        ["retire_at"],
        sqlite_where=sa.text("retire_at IS NOT NULL AND retired_at IS NULL"),
        postgresql_where=sa.text("retire_at IS NOT NULL AND retired_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("derivations")
