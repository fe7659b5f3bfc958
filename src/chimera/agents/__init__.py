"""Agent Definition as Code: from a YAML file to an immutable revision, and the catalogue of live agents."""
