"""What an agent's own factory is given when the host loads it: `factory(context)`.

The factory returns the framework's own object (see each adapter for which). `model` and `tools` are the framework's
native ones, bound to the platform: a call made through them is metered, bounded and cancelled like any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chimera_host.contract.agent import AgentDocument
from chimera_host.ports import ToolSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentContext:
    """An agent's surroundings. `work_dir` is its own folder, kept between calls and bounded by its storage quota.

    `tool_specs` are its tools by the name that the definition gives them. `model` and `tools` depend on the framework:
    a model client or its configuration, and the tools as the framework's own objects; None and empty for `function`,
    whose callable reaches both through the call's context.
    """

    document: AgentDocument
    work_dir: str | None = None
    tool_specs: Mapping[str, Sequence[ToolSpec]] = field(default_factory=dict)
    model: Any = None
    tools: Sequence[Any] = ()
