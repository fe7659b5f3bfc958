"""Tools in a trial whose answers its case gives: the agent sees them as they are, and none of them runs.

A function is imported, since its signature says what it takes. An MCP server isn't started or connected to, so its
tools are known by the names that the definition allows, and take any arguments.

Of the answers for a tool the first that fits the arguments and wasn't given yet is taken; the last one that fits is
given again and again. A call that none fits is the test's fault or the agent's: the model is told of a failed tool,
and the call fails in the end, whatever the agent made of that.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from chimera_host.broker.arguments import ArgumentCheck
from chimera_host.contract.tools import McpTool, ToolLimits, full_name
from chimera_host.contract.trial import ToolAnswer
from chimera_host.errors import ToolFailed, ToolRefused, TrialMisfit
from chimera_host.ports import CallContext, ToolSpec

ANYTHING: dict[str, Any] = {"type": "object"}


class ScriptedTool:
    """One tool of an agent that is being tested, in the place of the tool itself."""

    def __init__(self, kind: str, spec: ToolSpec, limits: ToolLimits, arguments: ArgumentCheck) -> None:
        """Stand for a tool of that kind, with its specification."""
        self.kind = kind
        self.spec = spec
        self.limits = limits
        self.arguments = arguments

    async def run(self, arguments: dict[str, Any], call: CallContext, seconds: float) -> str:
        """What the call's case says that the tool answers."""
        trial = call.request.trial
        if trial is None:
            raise ToolRefused(f"tool {self.spec.name!r} is not run in a test, and the call is of none")
        found = answer_for(trial.answers, call.tools_answered, self.spec.name, arguments)
        if found is None:
            misfit = TrialMisfit(
                f"the test gives no answer of tool {self.spec.name!r} for {', '.join(sorted(arguments)) or 'no'} "
                "arguments like these",
                next_step="add it under `tools` of the test, or make it an integration test",
                agent=call.document.name,
            )
            call.misfits.append(misfit)
            raise ToolFailed(misfit.detail, next_step=misfit.next_step)
        call.tools_answered.add(found)
        answer = trial.answers[found]
        if answer.error is not None:
            raise ToolFailed(answer.error)
        return answer.output


def answer_for(
    answers: Sequence[ToolAnswer], given: "set[int] | frozenset[int]", tool: str, arguments: Mapping[str, Any]
) -> int | None:
    """Which of `answers` a call of `tool` gets, after those at the places `given`; None where none fits."""
    fitting = [
        place
        for place, one in enumerate(answers)
        if one.tool == tool
        and all(name in arguments and arguments[name] == value for name, value in (one.arguments or {}).items())
    ]
    if not fitting:
        return None
    return next((place for place in fitting if place not in given), fitting[-1])


def server_tools(tool: McpTool) -> list[ScriptedTool]:
    """The allowed tools of a server that nobody asks."""
    return [
        ScriptedTool(
            "mcp",
            ToolSpec(name=name, description=f"The tool {one} of {tool.name}.", parameters=ANYTHING),
            tool.limits,
            ArgumentCheck(name, ANYTHING),
        )
        for one in dict.fromkeys(tool.allow)
        for name in (full_name(tool.name, one),)
    ]
