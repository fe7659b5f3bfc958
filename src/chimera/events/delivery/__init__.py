"""Delivering facts to subscribers: pure rules, the one loop that follows them, and the ports that it stands on."""
