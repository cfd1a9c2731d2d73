"""Where a board is kept: tables and migrations, the database, files, the signing secret."""
