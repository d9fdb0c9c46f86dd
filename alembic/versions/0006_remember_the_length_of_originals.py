"""Remember how long the originals were that lossy rules let go, so that what was received can still be told."""

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("derivations", sa.Column("original_bytes", sa.BigInteger()))


def downgrade() -> None:
    op.drop_column("derivations", "original_bytes")
