"""An agent's own tests, run for real: in the hosts that serve, in an environment apart from production."""
