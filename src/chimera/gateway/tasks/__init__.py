"""Durable tasks: long work that is accepted once, kept through any crash, and worked off by whichever gateway lives."""
