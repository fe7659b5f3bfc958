"""The gateway over HTTP: the public API, and the internal one for hosts."""
