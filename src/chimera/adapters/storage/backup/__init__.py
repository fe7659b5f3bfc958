"""Backups, restoring them, and moving a database to a server: rows in one encoding that no database has a say in."""
