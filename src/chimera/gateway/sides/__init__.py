"""The sides of agents in the way of a call: which one takes it, what is loaded ahead, and what is seen of each."""
