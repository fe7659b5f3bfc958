"""Vendor code behind ports: storage, substrates, models."""
