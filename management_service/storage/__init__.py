"""The task database: migrations, named SQL and the repositories that run it."""
