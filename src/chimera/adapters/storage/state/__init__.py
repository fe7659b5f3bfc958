"""The ports of `chimera.gateway.state.ports` on a database."""
