"""Chimera runs an ecosystem of 12,000+ specialised LLM agents as one system."""

__version__ = "0.1.0"
