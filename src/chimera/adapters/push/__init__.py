"""Requests to receivers that users of the platform name: guarded addresses, bounded in time and size."""
