"""The facts. Journals from before there were revisions have the table already."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("op_id", sa.String(80), nullable=False, unique=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("item", sa.Integer),
        sa.Column("key", sa.Text),
        sa.Column("value", sa.Text),
        sa.Column("annotator", sa.Text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("score", sa.Float),
        sa.Column("time", sa.String(40), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        if_not_exists=True,
    )
