"""Git repositories: reading objects, fetching from remote ones, and the hook of a bare one (ADR 31)."""
