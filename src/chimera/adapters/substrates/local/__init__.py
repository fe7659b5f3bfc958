"""Cells as groups of local processes: zygotes, forked hosts, limits, logs."""
