"""The audit log: every change and decision, and what came of it, in one chain that can't be altered unseen."""
