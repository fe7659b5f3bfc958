"""Agents on their frameworks alone, as a careful engineer writes them without a platform.

These modules run in a framework's own environment, where neither Chimera nor its host is installed: they import the
framework, the standard library, and FastAPI and uvicorn from a folder of their own.
"""
