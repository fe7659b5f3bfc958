"""Delivery: how a change of definitions gets from whoever wrote it to the agents that answer calls."""
