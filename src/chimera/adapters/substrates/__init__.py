"""Where cells run: local processes."""
