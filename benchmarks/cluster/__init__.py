"""Figures from a cluster: scale on simulated nodes, and calls side by side with plain Knative."""
