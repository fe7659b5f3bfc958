"""Cells as Knative Services: a small client of Kubernetes, what is applied, what is observed, and hosts as pods."""
