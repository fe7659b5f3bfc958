"""Charts from the code that renders an installation, so that there is one source and nothing to keep in step."""
