"""What signs checkpoints of the audit log, and where they are written beside the database."""
