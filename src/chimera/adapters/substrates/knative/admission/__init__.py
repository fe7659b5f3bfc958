"""The admission webhook's place in a cluster: its certificates, and whom the API server trusts with it."""
