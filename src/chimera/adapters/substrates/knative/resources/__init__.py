"""Chimera's own kinds in a cluster: their schemas, and how they go into the catalogue and their status comes back."""
