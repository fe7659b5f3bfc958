"""State that outlives a call: sessions, runs and their steps, stored answers, checkpoints, spaces, and whose it is."""
