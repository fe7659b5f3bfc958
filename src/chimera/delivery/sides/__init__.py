"""The two sides of agents that are rolled out: what is live, what is to be, and what calls on each came to."""
