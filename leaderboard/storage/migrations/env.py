"""Run migrations on the connection that `leaderboard.storage.database` holds (inside its transaction and lock)."""

from __future__ import annotations

from alembic import context

from leaderboard.storage.database import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter columns in place
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
