"""What the files of a dataset held when they were last read, so that each is read once."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "hashes",
        sa.Column("file", sa.String(64), primary_key=True),
        sa.Column("stamp", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        if_not_exists=True,
    )
