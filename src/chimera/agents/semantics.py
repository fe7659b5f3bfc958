"""What a schema can't say: the rules between fields. Each rule is a generator of faults; `check` runs them all.

Rules see a definition whose template is already merged in, and say the path of the field that is at fault; where it
stands in a file is found by `validate`. Warnings are faults that don't stop anything.
"""

import datetime
import difflib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from chimera.agents import quantities
from chimera.agents.errors import Fault
from chimera.agents.graph import check_graph
from chimera.agents.images import LONGEST_NAME, parse_image
from chimera.agents.patterns import pattern_fault
from chimera.agents.proving import expectations, json_schema_faults, test_faults
from chimera.agents.reach import LATER_PROTOCOLS, PROTOCOLS, resolve_point, suggest_point
from chimera.agents.spec import NODE_RUNTIME, PYTHON_RUNTIME, Definition, EventSubscription
from chimera.agents.subscriptions import MESSAGES, type_fault
from chimera.events import filters
from chimera.events.errors import InvalidSubscription
from chimera.events.inputs import FIELDS, unknown_fields
from chimera_host.contract.behaviour import AgentNode, Behaviour, BranchNode, ToolNode
from chimera_host.contract.tools import AgentTool, FunctionTool, McpTool, MessageTool

_SECTIONS = {"AutoGen": "autogen", "CrewAI": "crewai", "LangGraph": "langgraph", "function": "function"}


def check(definition: Definition) -> list[Fault]:
    """Every fault and warning of a definition, in the order of the rules."""
    return [fault for rule in RULES for fault in rule(definition)]


def _quantities(definition: Definition) -> Iterator[Fault]:
    resources = definition.specification.resources
    idle, latency = definition.scaling.idle_timeout, definition.service_level_objective.latency_p95
    bounded: tuple[tuple[str, str, Callable[[str], float], float, float, str], ...] = (
        ("specification.resources.cpu", resources.cpu, quantities.millicores, 100, 2000, "100m to 2000m"),
        ("specification.resources.memory", resources.memory, quantities.size, 128 << 20, 4 << 30, "128Mi to 4Gi"),
        ("specification.resources.storage", resources.storage, quantities.size, 1 << 30, 10 << 30, "1Gi to 10Gi"),
        ("scaling.idle_timeout", idle, quantities.seconds, 1, 86_400, "1s to 24h"),
        ("service_level_objective.latency_p95", latency, quantities.seconds, 0.001, 3_600, "1ms to 1h"),
    )
    for path, text, parse, least, most, allowed in bounded:
        if not least <= parse(text) <= most:
            yield Fault(path=path, message=f"{text} is out of bounds", allowed=allowed)
    if definition.scaling.min_instances > definition.scaling.max_instances:
        yield Fault(path="scaling.min_instances", message="more than max_instances")


def _section(definition: Definition) -> Iterator[Fault]:
    wanted = _SECTIONS[definition.specification.framework]
    for section in _SECTIONS.values():
        if section != wanted and getattr(definition.behaviour, section) is not None:
            yield Fault(
                path=f"behaviour.{section}",
                message=f"the framework is {definition.specification.framework}",
                allowed=f"behaviour.{wanted}",
            )


def _function(definition: Definition) -> Iterator[Fault]:
    """A function agent asks the model by its own message, or stands for a function elsewhere: one of both."""
    function = definition.behaviour.function
    if function is None:
        return
    path = "behaviour.function"
    if function.endpoint is None:
        if function.system_message is None:
            yield Fault(path=path, message="nothing says what it does", allowed="system_message, or endpoint")
        return
    for name, given in (("system_message", function.system_message), ("tools", function.tools or None)):
        if given is not None:
            yield Fault(
                path=f"{path}.{name}", message="the function at `endpoint` answers alone", allowed="one of both"
            )
    if definition.tools:
        yield Fault(path="tools", message="the function at `endpoint` answers alone", allowed="no tools")
    if definition.specification.runtime != PYTHON_RUNTIME:
        yield Fault(
            path="specification.runtime",
            message="an agent that stands for a function runs nothing",
            allowed=PYTHON_RUNTIME,
        )


def _code(definition: Definition) -> Iterator[Fault]:
    specification = definition.specification
    if specification.source is not None:
        yield from _source(definition, specification.source)
    if specification.entrypoint and not specification.source:
        yield Fault(
            path="specification.entrypoint", message="an entry point needs a source folder", allowed="source: ./…"
        )
    if specification.entrypoint and getattr(definition.behaviour, _SECTIONS[specification.framework]) is not None:
        yield Fault(
            path="behaviour", message="behaviour is declared and there is an entry point", allowed="one of both"
        )
    for index, tool in enumerate(definition.tools):
        if isinstance(tool, FunctionTool) and not specification.source:
            yield Fault(
                path=f"tools[{index}].function",
                message="a function needs a source folder",
                allowed="specification.source",
            )


def _source(definition: Definition, source: str) -> Iterator[Fault]:
    parts = PurePosixPath(source).parts
    if not parts or parts[0].startswith("/") or ".." in parts or "\\" in source or "\0" in source:
        yield Fault(
            path="specification.source",
            message=f"{source!r} is not below the definition's own folder",
            allowed="a relative path without ..",
        )
    used = (
        bool(definition.specification.entrypoint)
        or any(isinstance(one, FunctionTool) for one in definition.tools)
        or any(expected.check is not None for _, expected in expectations(definition))
    )
    if not used:
        yield Fault(
            path="specification.source",
            severity="warning",
            message="nothing uses the source folder",
            allowed="an entrypoint, tools of type function, or a test's check",
        )


def _tools(definition: Definition) -> Iterator[Fault]:
    names = [tool.name for tool in definition.tools]
    own_name = definition.metadata.name
    for index, tool in enumerate(definition.tools):
        if tool.name in names[:index]:
            yield Fault(path=f"tools[{index}].name", message=f"the tool {tool.name!r} stands twice")
        if isinstance(tool, McpTool) and (tool.command is None) == (tool.url is None):
            yield Fault(path=f"tools[{index}]", message="an MCP server is reached one way", allowed="command or url")
        if isinstance(tool, AgentTool | MessageTool) and tool.agent == own_name:
            yield Fault(path=f"tools[{index}].agent", message="an agent can't call itself", allowed="another agent")
        if isinstance(tool, FunctionTool) and tool.parameters is not None:
            yield from json_schema_faults(tool.parameters, f"tools[{index}].parameters")
    used_tools = list(_used_tools(definition))
    if definition.behaviour != Behaviour() and not definition.specification.entrypoint:
        called = {used for _, used in used_tools} | _called_in_full(definition)
        for index, tool in enumerate(definition.tools):
            if tool.name not in called:
                yield Fault(
                    path=f"tools[{index}]",
                    severity="warning",
                    message=f"no part of the behaviour uses the tool {tool.name!r}",
                    allowed="its name under `tools` of that part",
                )
    for path, used in used_tools:
        if used not in names:
            known = [*names, *(_names_in_full(definition) if path.endswith(".tool") else ())]
            near = difflib.get_close_matches(used, known, n=1)
            yield Fault(
                path=path,
                message=f"there is no tool {used!r}",
                allowed=", ".join(known) or "a tool listed under `tools`",
                suggestion=near[0] if near else None,
            )


def _used_tools(definition: Definition) -> Iterator[tuple[str, str]]:
    behaviour = definition.behaviour
    lists: list[tuple[str, tuple[str, ...]]] = []
    if behaviour.autogen:
        lists.append(("behaviour.autogen.tools", behaviour.autogen.tools))
        lists += [
            (f"behaviour.autogen.participants[{number}].tools", one.tools)
            for number, one in enumerate(behaviour.autogen.participants)
        ]
    if behaviour.crewai:
        lists += [
            (f"behaviour.crewai.members[{number}].tools", one.tools)
            for number, one in enumerate(behaviour.crewai.members)
        ]
    if behaviour.function:
        lists.append(("behaviour.function.tools", behaviour.function.tools))
    in_full = _names_in_full(definition)
    for number, node in enumerate(behaviour.langgraph.nodes if behaviour.langgraph else ()):
        if isinstance(node, AgentNode):
            lists.append((f"behaviour.langgraph.nodes[{number}].tools", node.tools))
        # A tool node calls one tool, so a server's is named in full: server_tool.
        if isinstance(node, ToolNode) and node.tool not in in_full:
            yield f"behaviour.langgraph.nodes[{number}].tool", node.tool
    for path, used in lists:
        for number, name in enumerate(used):
            yield f"{path}[{number}]", name


def _names_in_full(definition: Definition) -> dict[str, str]:
    """The tools of MCP servers as a tool node names them, `server_tool`, each with its server."""
    servers = [tool for tool in definition.tools if isinstance(tool, McpTool)]
    return {f"{server.name}_{name}": server.name for server in servers for name in server.allow}


def _called_in_full(definition: Definition) -> set[str]:
    """MCP servers that a tool node calls a tool of."""
    nodes = definition.behaviour.langgraph.nodes if definition.behaviour.langgraph else ()
    in_full = _names_in_full(definition)
    return {in_full[node.tool] for node in nodes if isinstance(node, ToolNode) and node.tool in in_full}


def _autogen(definition: Definition) -> Iterator[Fault]:
    autogen = definition.behaviour.autogen
    if autogen is None:
        return
    if autogen.participants and autogen.kind != "coordination":
        yield Fault(
            path="behaviour.autogen.participants",
            message="only coordination has participants",
            allowed="kind: coordination",
        )
    if autogen.kind == "coordination" and not autogen.participants:
        yield Fault(
            path="behaviour.autogen.kind", message="coordination needs participants", allowed="at least one participant"
        )
    yield from _unique([one.name for one in autogen.participants], "behaviour.autogen.participants", "participant")


def _crewai(definition: Definition) -> Iterator[Fault]:
    crew = definition.behaviour.crewai
    if crew is None:
        return
    members, tasks = [one.name for one in crew.members], [one.name for one in crew.tasks]
    yield from _unique(members, "behaviour.crewai.members", "member")
    yield from _unique(tasks, "behaviour.crewai.tasks", "task")
    for number, task in enumerate(crew.tasks):
        path = f"behaviour.crewai.tasks[{number}]"
        if task.member not in members:
            near = difflib.get_close_matches(task.member, members, n=1)
            yield Fault(
                path=f"{path}.member",
                message=f"there is no member {task.member!r}",
                allowed=", ".join(members),
                suggestion=near[0] if near else None,
            )
        for index, name in enumerate(task.context):
            if name not in tasks[:number]:
                yield Fault(
                    path=f"{path}.context[{index}]",
                    message=f"{name!r} is not an earlier task",
                    allowed=", ".join(tasks[:number]) or "none: this is the first task",
                )


def _langgraph(definition: Definition) -> Iterator[Fault]:
    graph = definition.behaviour.langgraph
    if graph is None:
        return
    yield from check_graph(graph, "behaviour.langgraph")
    for index, node in enumerate(graph.nodes):
        if not isinstance(node, BranchNode):
            continue
        for number, case in enumerate(node.cases):
            path = f"behaviour.langgraph.nodes[{index}].cases[{number}]"
            tests = (case.contains, case.equals, case.matches, case.longer_than)
            if sum(test is not None for test in tests) != 1:
                yield Fault(
                    path=path, message="a case has exactly one test", allowed="contains, equals, matches or longer_than"
                )
            if case.matches is not None and (fault := pattern_fault(case.matches)):
                yield Fault(
                    path=f"{path}.matches", message=fault, allowed="a regular expression without nested repetition"
                )


def _reach(definition: Definition) -> Iterator[Fault]:
    tools = [tool.name for tool in definition.tools]
    for index, point in enumerate(definition.capabilities.integration_points):
        if resolve_point(point, tools) is None:
            allowed, near = suggest_point(point, tools)
            yield Fault(
                path=f"capabilities.integration_points[{index}]",
                message=f"nothing is named {point!r}",
                allowed=allowed,
                suggestion=near,
            )
    yield from _tools_out_of_reach(definition)
    for index, protocol in enumerate(definition.capabilities.communication_protocols):
        if protocol.lower() not in PROTOCOLS:
            later = "is not served by this release" if protocol.lower() in LATER_PROTOCOLS else "is not a protocol"
            close = difflib.get_close_matches(protocol.lower(), PROTOCOLS, n=1)
            yield Fault(
                path=f"capabilities.communication_protocols[{index}]",
                message=f"{protocol!r} {later}",
                allowed=", ".join(PROTOCOLS),
                suggestion=close[0] if close else None,
            )


def _tools_out_of_reach(definition: Definition) -> Iterator[Fault]:
    """Integration points, where given, say all that the agent may reach; its model is always there."""
    points = definition.capabilities.integration_points
    if not points or not definition.tools:
        return
    names = [tool.name for tool in definition.tools]
    reached = {resolve_point(point, names) for point in points}
    for index, tool in enumerate(definition.tools):
        if f"tool:{tool.name}" in reached or (
            isinstance(tool, AgentTool | MessageTool) and "service:agents" in reached
        ):
            continue
        yield Fault(
            path=f"tools[{index}].name",
            message=f"the tool {tool.name!r} is not among the integration points",
            allowed=f"tool:{tool.name} under capabilities.integration_points, or no list there",
        )


def _runtime(definition: Definition) -> Iterator[Fault]:
    runtime, framework = definition.specification.runtime, definition.specification.framework
    if runtime == NODE_RUNTIME:
        yield Fault(
            path="specification.runtime",
            severity="warning",
            message="Node 18 is past its end of life; the settings map it to a supported Node",
        )
        if framework in ("AutoGen", "CrewAI"):
            yield Fault(path="specification.runtime", message=f"{framework} runs on Python", allowed=PYTHON_RUNTIME)
        elif framework == "LangGraph" and not definition.specification.entrypoint:
            yield Fault(
                path="specification.entrypoint",
                message="a LangGraph agent on Node brings its own graph",
                allowed=f"module:factory, or {PYTHON_RUNTIME} for a declared graph",
            )
        for index, _ in enumerate(definition.tools):
            yield Fault(
                path=f"tools[{index}]",
                message="the host for Node runs no tools",
                allowed=f"{PYTHON_RUNTIME}, or code of the entry point",
            )
    elif runtime != PYTHON_RUNTIME:
        if parse_image(runtime) is None:
            yield Fault(
                path="specification.runtime",
                message="no name of an image",
                allowed=f"[host[:port]/]path[:tag][@sha256:...], before the tag {LONGEST_NAME} characters at most",
            )
        yield Fault(
            path="specification.runtime",
            severity="warning",
            message=f"the custom image {runtime!r} runs on Kubernetes only; on one machine a call answers 501",
            allowed=f"{PYTHON_RUNTIME} or {NODE_RUNTIME} on one machine",
        )


def _promises(definition: Definition) -> Iterator[Fault]:
    retirement = definition.retirement
    if retirement is None:
        return
    try:
        datetime.date.fromisoformat(retirement.after)
    except ValueError:
        yield Fault(path="retirement.after", message=f"there is no day {retirement.after}", allowed="YYYY-MM-DD")
    if retirement.replaced_by == definition.metadata.name:
        yield Fault(path="retirement.replaced_by", message="an agent can't replace itself", allowed="another agent")


def _subscriptions(definition: Definition) -> Iterator[Fault]:
    subscriptions = definition.subscriptions
    offered = {protocol.lower() for protocol in definition.capabilities.communication_protocols}
    if subscriptions and "events" not in offered:
        yield Fault(
            path="subscriptions",
            message="events start the agent, and it doesn't say that it is reached by them",
            allowed="events under capabilities.communication_protocols",
        )
    yield from _unique([one.name for one in subscriptions], "subscriptions", "subscription")
    for index, tool in enumerate(definition.tools):
        if isinstance(tool, MessageTool) and tool.reply and "events" not in offered:
            yield Fault(
                path=f"tools[{index}].reply",
                message="a reply is an event, and the agent doesn't say that it is reached by them",
                allowed="events under capabilities.communication_protocols, or reply: false",
            )
    for index, one in enumerate(subscriptions):
        path = f"subscriptions[{index}]"
        if one.name == MESSAGES:
            yield Fault(
                path=f"{path}.name", message=f"{one.name!r} is what messages of agents come by", allowed="another"
            )
        for number, text in enumerate(one.types):
            if (fault := type_fault(text)) is not None:
                message, near = fault
                allowed = "a type of docs/reference/events.md, or one of another source"
                yield Fault(path=f"{path}.types[{number}]", message=message, allowed=allowed, suggestion=near)
        yield from _event_filters(one, path)
        if not 1 <= quantities.seconds(one.expires) <= 604_800:
            yield Fault(path=f"{path}.expires", message=f"{one.expires} is out of bounds", allowed="1s to 7d")
        for field in unknown_fields(one.input or ""):
            yield Fault(
                path=f"{path}.input",
                message=f"an event has no {{{field}}}",
                allowed=", ".join(f"{{{name}}}" for name in FIELDS) + ", {data.path}",
            )


def _event_filters(one: EventSubscription, path: str) -> Iterator[Fault]:
    try:
        filters.check(one.filters, known=None)
    except InvalidSubscription as error:
        yield Fault(path=f"{path}.filters", message=error.detail, allowed="see docs/guides/events.md")


def _unique(names: list[str], path: str, kind: str) -> Iterator[Fault]:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Fault(path=f"{path}[{index}].name", message=f"the {kind} {name!r} stands twice")


RULES = (
    *(_quantities, _section, _function, _code, _tools, _autogen, _crewai, _langgraph),
    *(_reach, _runtime, _subscriptions, _promises, test_faults),
)
