"""The agent's tools as CrewAI's own objects: they go to the broker, which checks the arguments."""

from typing import Any, cast

from crewai.tools import BaseTool
from pydantic import BaseModel, ConfigDict

from chimera_host.ports import ToolSpec, current_call


class Arguments(BaseModel):
    """Any arguments: what the model is shown is the tool's own schema, and the broker holds calls to it."""

    model_config = ConfigDict(extra="allow")


class PlatformTool(BaseTool):  # type: ignore[misc]
    """One tool of the agent; holds nothing of a call."""

    @classmethod
    def of(cls, spec: ToolSpec) -> "PlatformTool":
        """The tool that `spec` describes."""
        return cls(name=spec.name, description=spec.description, args_schema=_schema(spec))

    def _run(self, *_: Any, **arguments: Any) -> str:
        return current_call.get().tool_blocking(self.name, arguments)


def _schema(spec: ToolSpec) -> type[Arguments]:
    parameters = spec.parameters or {"type": "object", "properties": {}}

    def model_json_schema(_: type[Arguments], *__: Any, **___: Any) -> dict[str, Any]:
        return {"title": spec.name, **parameters}

    made = type("ToolArguments", (Arguments,), {"model_json_schema": classmethod(model_json_schema)})
    return cast(type[Arguments], made)
