"""Definitions for repositories that tests make."""

AGENT = """\
schema_version: "ADaC v2.0"
extends: autogen-conversational
metadata: {{name: {name}, version: "0.1.0", description: {description}}}
capabilities: {{primary_functions: [answer]}}
"""
"""A small definition; fill in `name` and `description`."""
