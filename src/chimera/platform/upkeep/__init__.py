"""Upkeep: what has ended or was replaced is removed in small batches, and what is kept is measured."""
