"""The tool broker. Only imported by a host that holds an agent with tools, which is why `Broker` is exported here.

`broker` is the pipeline; `functions`, `agent_tools` and `mcp` are the kinds of tools; `rules`, `egress` and `arguments`
decide; `running`, `http` and `credentials` act.
"""

from chimera_host.broker.broker import Broker
from chimera_host.broker.context import ToolContext

__all__ = ["Broker", "ToolContext"]
