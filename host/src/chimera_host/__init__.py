"""The process that runs agents: one framework, many agents, the Knative container contract.

`chimera_host.contract` is what the platform and a host say to each other; the rest is the host itself. It knows
nothing of the platform behind the contract and imports little beside one framework.
"""

__version__ = "0.1.0"
