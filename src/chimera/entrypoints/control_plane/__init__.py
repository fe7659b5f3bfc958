"""The control plane over HTTP, on a Unix socket behind the gateway: the catalogue of agents."""
