"""Alembic migrations; applied by `Database.migrate`."""
