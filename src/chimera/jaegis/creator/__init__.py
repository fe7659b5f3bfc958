"""The Agent Creator, as far as it is built: whether a definition fits the ecosystem that it is to live in."""
