"""Cells, placement, autoscaling and routing: which processes run, and which of them answers a call."""
