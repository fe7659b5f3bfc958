"""Facts as they are read, subscriptions to them, and how far their delivery is."""
