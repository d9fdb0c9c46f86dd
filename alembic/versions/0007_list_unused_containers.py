"""Note since when a container holds nothing that is not kept elsewhere too, so that it goes only some days later."""

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("containers", sa.Column("unused_since", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("containers", "unused_since")
