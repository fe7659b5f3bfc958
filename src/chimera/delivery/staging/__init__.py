"""Staging: a change's agents in an environment made as production is, and what is found out about them there."""
