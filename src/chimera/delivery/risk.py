"""How risky a change is, by what it means: framework, code, tools, class of data, budget, reach, how many it touches.

Each rule looks at one agent, as it is and as it will be, and says what raises the risk. The change's is the highest
that any rule says, and `low` where none says anything. A field that no rule knows is `medium`: what a later release
adds is not low by omission. So low are texts, tags, tests, names of owners, and bounds that get tighter; and the words
an agent is instructed with, where it has neither tools nor code nor data that is confidential.

A new agent is judged by what it brings, as if each of its parts had been added; nobody relies on it yet.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from chimera.agents.compile import CanonicalDefinition
from chimera.agents.diff import Change as FieldChange
from chimera.agents.diff import compare
from chimera.agents.spec import DATA_CLASSES
from chimera.delivery.model import RISKS, Reason, Risk
from chimera.delivery.ports import Revision
from chimera_host.contract.tools import AgentTool, FunctionTool, McpTool, MessageTool, Tool, ToolLimits

MANY = 100
"""So many agents in one change make it medium, whatever it does: what is wrong with it is wrong with all of them."""
FACTOR = 2.0
"""A bound that grows by more than this is high; by less, medium."""
CONFIDENTIAL = ("confidential", "personal")
Said = tuple[str, Risk, str]
"""A rule's name, the risk that it says, and why."""
Rule = Callable[[FieldChange, CanonicalDefinition, CanonicalDefinition], Said]


def assess(revisions: Sequence[Revision]) -> tuple[Risk, tuple[Reason, ...]]:
    """The risk of a change, and its reasons: the gravest first, one for each that agents have in common."""
    found: dict[Said, list[str]] = {}
    for one in revisions:
        for said in dict.fromkeys(_of_agent(one)):
            found.setdefault(said, []).append(one.item.agent)
    if len(revisions) >= MANY:
        found["many", "medium", f"{MANY} agents or more change at once"] = [one.item.agent for one in revisions]
    reasons = [
        Reason(rule=rule, risk=risk, text=text, agent=agents[0], agents=len(agents))
        for (rule, risk, text), agents in found.items()
    ]
    reasons.sort(key=lambda one: (-RISKS.index(one.risk), one.rule, one.text))
    return (reasons[0].risk if reasons else "low"), tuple(reasons)


def _of_agent(one: Revision) -> Iterator[Said]:
    if one.compiled is None:
        yield "removed", "medium", "an agent is taken out of service"
    elif one.before is None:
        yield from _new(one.compiled.value)
    else:
        for change in compare(one.before, one.compiled.value).changes:
            yield from of_field(change, one.before, one.compiled.value)


# -- a new agent -----------------------------------------------------------------------------------------------------


def _new(value: CanonicalDefinition) -> Iterator[Said]:
    yield "new", "low", "an agent is new"
    if value.agent.source is not None:
        yield "code", "high", _NEW_CODE
    for tool in value.agent.tools:
        yield _gained(tool)
    if value.data_class in CONFIDENTIAL:
        yield "data", "high", f"it works with {value.data_class} data"
    for field, unit in _BUDGETS.items():
        if field != "calls_per_minute" and getattr(value, field) is None:
            yield "budget", "medium", f"no bound on {unit}"
    if value.subscriptions:
        yield "reach", "medium", "events start it"
    if any(point.startswith("jaegis:") for point in value.agent.reach):
        yield "reach", "high", _ECOSYSTEM
    function = value.agent.behaviour.function
    if function is not None and function.endpoint is not None:
        yield "reach", "high", _ELSEWHERE
    if value.runtime not in ("python:3.11-slim", "node:18-alpine"):
        yield "framework", "high", "an image of its own"


# -- a change of one field -------------------------------------------------------------------------------------------


def of_field(change: FieldChange, old: CanonicalDefinition, new: CanonicalDefinition) -> Iterator[Said]:
    """What the first rule that knows the field says, and that callers may lose something."""
    for pattern, rule in _RULES:
        if pattern.fullmatch(change.path):
            yield rule(change, old, new)
            break
    else:
        yield "other", "medium", f"{_NAMES.sub('', change.path)} differs"
    if change.kind == "breaking":
        yield "breaking", "medium", "callers may lose something they rely on"


def _low(change: FieldChange, _old: CanonicalDefinition, _new: CanonicalDefinition) -> Said:
    return "texts", "low", "texts, tags, tests or bounds of time differ"


def _framework(change: FieldChange, _old: CanonicalDefinition, _new: CanonicalDefinition) -> Said:
    return "framework", "high", f"the {change.path.rpartition('.')[2]} differs"


def _code(_: FieldChange, old: CanonicalDefinition, new: CanonicalDefinition) -> Said:
    if new.agent.source is None:
        return "code", "medium", "its own code is gone"
    return ("code", "high", _NEW_CODE) if old.agent.source is None else ("code", "medium", "other code of its own")


def _tool(change: FieldChange, old: CanonicalDefinition, new: CanonicalDefinition) -> Said:
    name = change.path.partition("[")[2].partition("]")[0]
    before, after = (next((one for one in each.agent.tools if one.name == name), None) for each in (old, new))
    if after is None:
        return "tools", "medium", "a tool is gone"
    if before is None:
        return _gained(after)
    if getattr(before, "credentials", None) != getattr(after, "credentials", None):
        return "tools", "high", "a tool has other credentials"
    part = change.path.partition("].")[2]
    if part == "limits":  # as a whole, where they are set on one side alone
        return _limits(change, old, new, before.limits, after.limits)
    if part == "limits.egress":
        more = set(after.limits.egress) - set(before.limits.egress)
        return "reach", "high" if more else "low", "a tool may connect elsewhere"
    return "tools", _GRAVITY[type(after)], "a tool does something else"


def _limits(
    change: FieldChange, old: CanonicalDefinition, new: CanonicalDefinition, before: ToolLimits, after: ToolLimits
) -> Said:
    """The gravest of what differs in them."""
    parts = [
        FieldChange(path=f"{change.path}.{name}", kind=change.kind, reason=change.reason)
        for name in ToolLimits.__struct_fields__
        if getattr(before, name) != getattr(after, name)
    ]
    return max((said for part in parts for said in of_field(part, old, new)), key=lambda said: RISKS.index(said[1]))


def _data(_: FieldChange, old: CanonicalDefinition, new: CanonicalDefinition) -> Said:
    graver = DATA_CLASSES.index(new.data_class) > DATA_CLASSES.index(old.data_class)
    confidential = new.data_class in CONFIDENTIAL or old.data_class in CONFIDENTIAL
    grave: Risk = "high" if confidential or not graver else "medium"
    return "data", grave, f"its data is {new.data_class}, and was {old.data_class}"


def _budget(change: FieldChange, _old: CanonicalDefinition, _new: CanonicalDefinition) -> Said:
    return _bound("budget", change, _BUDGETS[change.path])


def _size(change: FieldChange, _old: CanonicalDefinition, _new: CanonicalDefinition) -> Said:
    return _bound("size", change, change.path.rpartition(".")[2].replace("_", " "))


def _reach(change: FieldChange, _old: CanonicalDefinition, _new: CanonicalDefinition) -> Said:
    added = set(change.new or ()) - set(change.old or ())
    if any(point.startswith("jaegis:") for point in added):
        return "reach", "high", _ECOSYSTEM
    return ("reach", "medium", "it reaches more") if added else ("reach", "low", "it reaches less")


def _entry(change: FieldChange, _old: CanonicalDefinition, _new: CanonicalDefinition) -> Said:
    return "reach", "medium", "it is reached in another way" if change.path == "protocols" else "other events start it"


def _endpoint(change: FieldChange, _old: CanonicalDefinition, _new: CanonicalDefinition) -> Said:
    """The function elsewhere that answers for the agent: whatever callers say goes there."""
    if change.path.endswith(".format"):
        return "reach", "medium", "a function elsewhere is asked in another form"
    if change.new is None and change.path.endswith(".endpoint"):
        return "reach", "medium", "no function elsewhere answers for it any more"
    return "reach", "high", _ELSEWHERE


def _model(_: FieldChange, old: CanonicalDefinition, new: CanonicalDefinition) -> Said:
    if old.agent.model.name != new.agent.model.name:
        return "model", "medium", "another model"
    return _instructions(_, old, new)


def _owner(change: FieldChange, old: CanonicalDefinition, new: CanonicalDefinition) -> Said:
    was, now = (None if one.owner is None else one.owner.team for one in (old, new))
    return ("owner", "low", "another contact") if was == now else ("owner", "high", "another team answers for it")


def _ending(change: FieldChange, _old: CanonicalDefinition, _new: CanonicalDefinition) -> Said:
    return "removed", "medium", "when it ends differs"


def _objective(change: FieldChange, _old: CanonicalDefinition, _new: CanonicalDefinition) -> Said:
    return "objective", "medium", "callers are promised something else"


def _instructions(_: FieldChange, old: CanonicalDefinition, new: CanonicalDefinition) -> Said:
    if new.agent.tools or new.agent.source is not None or new.data_class in CONFIDENTIAL:
        return "instructions", "medium", "it is instructed otherwise, and has tools, code or confidential data"
    return "instructions", "low", "it is instructed otherwise"


def _gained(tool: Tool) -> Said:
    grave: Risk = "high" if getattr(tool, "credentials", None) or tool.limits.egress else _GRAVITY[type(tool)]
    return "tools", grave, f"a tool more: {_GAINED[type(tool)]}"


def _bound(rule: str, change: FieldChange, what: str) -> Said:
    """A bound: tighter is low (where that breaks callers, `breaking` says so), wider by more than twice is high."""
    old, new = change.old, change.new
    if new is None:
        return rule, "high", f"no bound any more on {what}"
    if old is None or new <= old:
        return rule, "low", f"a tighter bound on {what}"
    return rule, "high" if new > FACTOR * max(old, 1) else "medium", f"a wider bound on {what}"


_NAMES = re.compile(r"\[[^\]]*\]")
_NEW_CODE = "code of its own that wasn't there"
_ECOSYSTEM = "it reaches the ecosystem's own components"
_ELSEWHERE = "a function elsewhere answers for it, at an address or with a credential that is new"
_BUDGETS = {"tokens_per_day": "tokens a day", "usd_per_day": "dollars a day", "calls_per_minute": "calls a minute"}
_GRAVITY: dict[type[Tool], Risk] = {FunctionTool: "medium", McpTool: "high", AgentTool: "medium", MessageTool: "medium"}
_GAINED: dict[type[Tool], str] = {
    FunctionTool: "a function of its code",
    McpTool: "a server outside of the platform",
    AgentTool: "another agent, which it calls",
    MessageTool: "another agent, to which it writes",
}
_RULES: tuple[tuple[re.Pattern[str], Rule], ...] = tuple(
    (re.compile(pattern), rule)
    for pattern, rule in (
        (r"agent\.description|tags|tests(\[.*)?|idle_timeout|agent\.primary_functions|agent\.tools", _low),
        (r"agent\.tools\[[^\]]*\]\.(description|limits\.(deadline_seconds|max_output_bytes))", _low),
        (r"agent\.tools\[.*", _tool),
        (r"agent\.framework|runtime|isolation", _framework),
        (r"agent\.source(\..*)?", _code),
        (r"data_class", _data),
        ("|".join(_BUDGETS), _budget),
        (r"(min|max)_instances|concurrency_target|agent\.concurrency|agent\.resources\.\w+", _size),
        (r"agent\.reach", _reach),
        (r"protocols|subscriptions(\[.*)?", _entry),
        (r"agent\.model(\..*)?", _model),
        (r"agent\.behaviour\.function\.endpoint\.(timeout_seconds|max_output_bytes)", _low),
        (r"agent\.behaviour\.function\.endpoint(\..*)?", _endpoint),
        (r"agent\.behaviour\..*", _instructions),
        (r"owner", _owner),
        (r"retirement", _ending),
        (r"availability|latency_p95", _objective),
    )
)
"""The first whose pattern is the whole path of a field speaks for it."""
