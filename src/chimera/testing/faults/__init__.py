"""Faults under load: what clients were told (`history`), the clients (`load`), and what goes wrong (`killing`)."""
