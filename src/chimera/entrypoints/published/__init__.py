"""What is published of the API beyond one process: the form of an operation, and the catalogue's operations.

The control plane makes its routes from the same table from which the gateway makes the OpenAPI document and decides
what it passes on, so that the three can't differ. It stands beside the entry points, which don't know each other.
"""
