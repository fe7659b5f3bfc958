"""What each field of a definition means, in a sentence: for editors, which show it, and for the reference page.

Texts stand here and not beside the fields because many fields belong to the wire contract, where hosts would carry them
for nothing. A test refuses a field without a text and a text without a field.
"""

from typing import Final

_TOOLS = "Names of tools, from the definition's `tools`, that it may use."
_NAME = "Its name: a letter or `_`, then letters, digits, `_` and `-`, at most 63."
_NEXT = "The nodes that run after this one; several run in parallel. Without any, the path ends here."
_ON_ERROR = "The node that takes over when this one fails; `{error}` holds the reason. Without it the call fails."
_CREDENTIALS = (
    "Environment variable or header, and the secret that fills it, as `secret:NAME`; never the secret itself."
)
_LIMITS = "Bounds of one call."
_TOOL_DESCRIPTION = "What it does, as the model is told."

FIELDS: Final[dict[str, dict[str, str]]] = {
    "Definition": {
        "schema_version": "The version of this format.",
        "metadata": "Who the agent is.",
        "specification": "What runs the agent.",
        "capabilities": "What the agent is for, what it may reach, and how it may be reached.",
        "behaviour": "What it does, in the section of its framework; without one, made from its description and "
        "primary functions.",
        "tools": "Functions, MCP servers and other agents that it may use.",
        "subscriptions": "Events that start it. Needs the protocol `events`.",
        "scaling": "How far it scales.",
        "isolation": "`shared`: on hosts with others of its kind. `dedicated`: on hosts of its own.",
        "model": "Which model it uses, and how.",
        "budget": "What its model calls may cost.",
        "service_level_objective": "What callers may expect.",
        "tests": "The agent's own tests.",
        "data_class": "The gravest data that it is given: `public`, `internal`, `confidential` or `personal`. It "
        "raises the risk of a change.",
        "owner": "Who answers for the agent.",
        "retirement": "When the agent ends.",
    },
    "Metadata": {
        "version": "A semantic version (semver.org), in quotes.",
        "description": "What the agent is for. It also instructs an agent that declares no behaviour.",
    },
    "Specification": {
        "framework": "Whose objects do the work; `function` is a model call without a framework.",
        "resources": "What it may use of its host.",
        "entrypoint": "`module:factory` in the source folder, which makes the agent instead of a declared behaviour.",
        "source": "A folder below the definition's own, with the agent's code and its locked `requirements.txt`.",
    },
    "Capabilities": {
        "primary_functions": "What it does, one function each.",
        "integration_points": "What it may reach: `jaegis:…`, `service:…`, `tool:…` or `event:…`; with every tool.",
        "communication_protocols": "How it may be reached: `http`, `sse`, `openai`, `events`.",
    },
    "Behaviour": {
        "autogen": "For framework AutoGen.",
        "crewai": "For framework CrewAI.",
        "langgraph": "For framework LangGraph.",
        "function": "For framework function.",
    },
    "AutoGenBehaviour": {
        "kind": "`conversational` answers a person, `task_execution` works with an executor that runs its tools, "
        "`coordination` leads a group.",
        "system_message": "What it is told before every conversation.",
        "participants": "The group; for `coordination` alone.",
        "pattern": "Who speaks next in the group.",
        "max_rounds": "The most contributions, or turns with tools, of one call.",
        "termination": "The word that ends the conversation.",
        "tools": _TOOLS,
    },
    "AutoGenParticipant": {
        "name": _NAME,
        "role": "What it is in the group, in a line.",
        "system_message": "What it is told; by default its name and role.",
        "tools": _TOOLS,
    },
    "CrewAIBehaviour": {
        "members": "The crew.",
        "tasks": "What the crew does, in order.",
        "process": "`sequential`: task after task. `hierarchical`: a manager hands them out.",
    },
    "CrewMember": {
        "name": _NAME,
        "role": "What it is in the crew, in a line.",
        "goal": "What it is after.",
        "backstory": "What it knows and how it works.",
        "tools": _TOOLS,
    },
    "CrewTask": {
        "name": _NAME,
        "description": "What is to be done; `{input}` is the caller's message.",
        "expected_output": "What the result looks like.",
        "member": "The member that does it.",
        "context": "Earlier tasks whose results it is given.",
    },
    "LangGraphBehaviour": {
        "nodes": "The steps.",
        "start": "The nodes that run first; several run in parallel.",
        "output": "The text of the answer, with `{node-name}` for a node's output; by default the last nodes' outputs.",
    },
    "PromptNode": {
        "type": "Asks the model.",
        "name": _NAME,
        "prompt": "What the model is asked, with `{input}` and `{node-name}` of earlier nodes.",
        "system_message": "What it is told before that.",
        "next": _NEXT,
        "on_error": _ON_ERROR,
    },
    "ToolNode": {
        "type": "Calls one tool.",
        "name": _NAME,
        "tool": "The tool; one of an MCP server's is named `server_tool`.",
        "arguments": "Its arguments; texts may hold `{input}` and `{node-name}`.",
        "next": _NEXT,
        "on_error": _ON_ERROR,
    },
    "AgentNode": {
        "type": "Works with tools until it has an answer.",
        "name": _NAME,
        "system_message": "What it is told.",
        "prompt": "What it is asked, with `{input}` and `{node-name}` of earlier nodes.",
        "tools": _TOOLS,
        "next": _NEXT,
        "on_error": _ON_ERROR,
    },
    "BranchNode": {
        "type": "Chooses the next node.",
        "name": _NAME,
        "cases": "Tests in order; the first that holds decides.",
        "otherwise": "The node to go to when none holds.",
        "value": "The text that is tested, with `{input}` and `{node-name}` of earlier nodes.",
    },
    "Condition": {
        "to": "The node to go to.",
        "contains": "Holds if the value contains this, in any case of letters.",
        "equals": "Holds if the value is this, in any case of letters, blanks around it apart.",
        "matches": "Holds if this regular expression is found in the value.",
        "longer_than": "Holds if the value has more characters than this.",
    },
    "FunctionBehaviour": {
        "system_message": "What the model is told. This or `endpoint`.",
        "endpoint": "The function elsewhere that answers instead.",
        "tools": _TOOLS,
        "max_rounds": "The most model calls of one call.",
    },
    "FunctionEndpoint": {
        "url": "Where the function answers. Other than public addresses by https must be allowed by the operator.",
        "format": "What it is sent: JSON, or that as a CloudEvent.",
        "credential": "What it is shown as a bearer token: `secret:NAME`.",
        "timeout_seconds": "How long it may take.",
        "max_output_bytes": "How much it may answer.",
    },
    "FunctionTool": {
        "type": "A Python function.",
        "name": _NAME,
        "function": "`module:function` in the source folder.",
        "description": _TOOL_DESCRIPTION + " By default the function's own docstring.",
        "parameters": "The JSON Schema of its arguments. By default made from the function's signature.",
        "credentials": _CREDENTIALS,
        "limits": _LIMITS,
    },
    "ToolLimits": {
        "deadline_seconds": "How long one call may take.",
        "max_output_bytes": "How much one call may answer.",
        "egress": "The hosts it may connect to; none by default. Link-local and metadata addresses are always refused.",
    },
    "McpTool": {
        "type": "An MCP server.",
        "name": _NAME + " Its tools are called `name_tool`.",
        "allow": "The server's tools that the agent may use.",
        "command": "Program and arguments that start it, over stdio. This or `url`.",
        "url": "Where it is reached, over streamable HTTP. This or `command`.",
        "credentials": _CREDENTIALS,
        "limits": _LIMITS,
    },
    "AgentTool": {
        "type": "Another agent.",
        "name": _NAME,
        "agent": "The other agent's name, in the same tenant.",
        "description": _TOOL_DESCRIPTION + " By default the other agent's description.",
        "limits": _LIMITS,
    },
    "EventSubscription": {
        "name": "Names the subscription; unique among the agent's.",
        "types": "What its type is: `task.failed`, `com.example.order.created`, or the beginning of one and `*`.",
        "sources": "What its source is, or the beginning of it and `*`; by default any.",
        "subjects": "What its subject is, or the beginning of it and `*`; by default any.",
        "filters": "More that it must pass: filters of the CloudEvents Subscriptions API.",
        "data": "Values that its JSON data must have, by path: `order.state: paid`.",
        "input": "What the agent is told, with `{type}`, `{subject}`, `{data}` or `{data.path}` of the event; by "
        "default its type, source, subject and data.",
        "session": "`event`: each event alone. `subject`: one session for each subject. `subscription`: one for all.",
        "attempts": "How often it is tried before the event is a dead letter; by default as for any task.",
        "expires": "The event is a dead letter when the agent has not answered by then: 1s to 7d.",
        "priority": "Of a tenant's tasks the higher ones go first: -100 to 100.",
    },
    "MessageTool": {
        "type": "Another agent, written to and not waited for.",
        "name": _NAME,
        "agent": "The other agent's name, in the same tenant; it must be reached by `events`.",
        "reply": "Whether its answer comes back, as a message in the same session.",
        "description": _TOOL_DESCRIPTION + " By default that it sends a message.",
        "limits": _LIMITS,
    },
    "Scaling": {
        "min_instances": "Instances kept ready while nobody calls; with 0 its cell may sleep.",
        "max_instances": "The most instances that work for it.",
        "concurrency_target": "Calls at once that one instance takes.",
        "idle_timeout": "After this long without a call it is unloaded: 1s to 24h.",
        "calls_per_minute": "Calls of any caller; more are answered 429. By default without a limit.",
    },
    "ModelChoice": {
        "name": "A model's name in the settings.",
        "temperature": "How freely it chooses words: 0 to 2.",
        "top_p": "The share of likely words it chooses from.",
        "max_tokens": "The longest answer.",
        "seed": "Makes answers repeatable where the model supports it.",
    },
    "Budget": {
        "tokens_per_day": "Prompt and answer tokens together; calls above it are refused.",
        "usd_per_day": "By the prices in the settings; calls above it are refused.",
    },
    "ServiceLevelObjective": {
        "availability": "The share of calls that succeed.",
        "latency_p95": "95 of 100 calls are answered within this: 1ms to 1h.",
    },
    "AgentTest": {
        "name": "Names the test; unique among the agent's tests.",
        "input": "The caller's message.",
        "expect": "What the answer must be like.",
        "model": "`scripted`: the test says what the model answers. `real`: the agent's own model. If not said: "
        "scripted where the test brings `answers`.",
        "answers": "What the scripted model says, one for each question, in order.",
        "tools": "What the agent's tools answer; none of them runs.",
        "integration": "The tools are real, with the credentials of staging.",
        "then": "Further turns in the same session.",
        "runs": "How often the test is run.",
        "pass_share": "The share of the runs that must pass.",
        "timeout_seconds": "What one turn may take: 30 s with a scripted model, 120 s with a real one, if not said.",
    },
    "Turn": {
        "input": "The caller's message.",
        "expect": "What the answer must be like.",
        "answers": "What the scripted model says in this turn, one for each question, in order.",
    },
    "Expectation": {
        "contains": "Each of these stands in the answer.",
        "excludes": "None of these stands in the answer.",
        "json_schema": "The answer is JSON that this schema allows.",
        "rubric": "What a judging model must agree to.",
        "check": "`module:function` of the source folder, called with the answer and the case; it tells what is wrong.",
    },
    "ModelAnswer": {"text": "What it says.", "tools": "Tools that it asks for."},
    "AskedTool": {
        "name": "The tool as the model sees it: its name, or `server_tool` for one of an MCP server.",
        "arguments": "What it is asked with.",
    },
    "ToolAnswer": {
        "tool": "The tool as the model sees it: its name, or `server_tool` for one of an MCP server.",
        "arguments": "Answers only a call that has these values among its own.",
        "output": "What it gives.",
        "error": "Fails instead, with these words.",
    },
    "Owner": {"contact": "Where the team is reached."},
    "Retirement": {"after": "The last day it takes calls, as YYYY-MM-DD."},
}
