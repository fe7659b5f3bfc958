"""Durable tasks in the database."""
