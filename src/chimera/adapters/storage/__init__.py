"""SQLite behind the ports: the schema and its migrations, one writer with group commit, and what is kept."""
