"""Events that start agents: who wants one, what it is asked, and what becomes of an event that no agent took."""
