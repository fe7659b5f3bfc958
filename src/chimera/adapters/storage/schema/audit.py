"""Signed checkpoints of the audit log."""
