"""Rollouts and their members on the database."""
