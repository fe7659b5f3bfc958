"""Events for callers: streams and pages of them, subscriptions, dead letters."""
