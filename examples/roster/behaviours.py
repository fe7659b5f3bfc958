"""The behaviour of an entry's agent, declared in its framework's own terms.

Which of a framework's shapes is taken follows from the text: an AutoGen agent that produces something works as a task
execution, one that deals with several parties leads a group; a crew gets a second member where the work is also
checked, and a third where it is planned for long; a graph branches where the work depends on what is found, looks at
several sides at once where the work lists them, and goes step by step otherwise.
"""

import re
from typing import Any

from roster.entry import Entry
from roster.frameworks import Work
from roster.words import stem

Data = dict[str, Any]
LONGEST_SHORT_TEXT = 400
_SENTENCE = re.compile(r"(?<=[a-z)]{2}\.)\s+(?=[A-Z])")


def _stems(text: str) -> frozenset[str]:
    return frozenset(map(stem, text.split()))


_PRODUCES = _stems(
    "write translate compile draft produce report transcribe calculate edit summarise document design develop"
)
_PARTIES = _stems("negotiate mediate debate moderate arbitrate dispute consensus multidisciplinary interdisciplinary")
_CHECKED = _stems("quality standard compliance audit evaluate evaluation monitor ensure review safety regulation")
_LONG_TERM = _stems("strategy strategic policy programme campaign reform governance")
_HANDED_DOWN = _stems("delegate subordinate hierarchy board")
_DEPENDS = _stems(
    "inspect check verify detect diagnose test determine identify compliance fault defect whether depending"
)
_SIDES = _stems("analyse evaluate compare assess examine study investigate")


def behaviour(entry: Entry, work: Work) -> Data:
    """The `behaviour` section for `entry`, whose kind of work is `work`."""
    stems = frozenset(map(stem, entry.words()))
    match work:
        case "conversing":
            return {"autogen": _autogen(entry, stems)}
        case "cooperating":
            return {"crewai": _crew(entry, stems)}
        case "stepwise":
            return {"langgraph": _graph(entry, stems)}


def shape(section: Data) -> str:
    """What `behaviour` chose, in a word or two, for counting."""
    if autogen := section.get("autogen"):
        return f"AutoGen {autogen['kind']}"
    if crew := section.get("crewai"):
        return f"CrewAI {crew['process']}, {len(crew['members'])} member{'s' if len(crew['members']) > 1 else ''}"
    graph = section["langgraph"]
    if len(graph["start"]) > 1:
        return "LangGraph parallel"
    return "LangGraph conditional" if graph["nodes"][0]["type"] == "branch" else "LangGraph sequential"


_WHAT = {"occupation": "You work as", "task": "Your task", "skill": "Your skill"}


def instructions(entry: Entry) -> str:
    """What the agent is told that it is."""
    also = f" This is also called: {entry.other_names}." if entry.other_names else ""
    return f"{_WHAT[entry.kind]}: {entry.label}. {entry.definition}{also}"


def in_short(entry: Entry) -> str:
    """The same in a sentence, for those parts of an agent that help its main part."""
    return f"{_WHAT[entry.kind]}: {entry.label}. {first_sentence(entry.definition)}"


def first_sentence(text: str) -> str:
    """The first sentence of `text`, cut at a length that suits a short text."""
    return _SENTENCE.split(text, maxsplit=1)[0][:LONGEST_SHORT_TEXT]


def _autogen(entry: Entry, stems: frozenset[str]) -> Data:
    told, short = instructions(entry), in_short(entry)
    if stems & _PARTIES:
        return {
            "kind": "coordination",
            "pattern": "round_robin",
            "max_rounds": 2,
            "system_message": f"{told} Lead the group to one answer.",
            "participants": [
                {
                    "name": "advocate",
                    "role": "Speaks for what the person wants.",
                    "system_message": f"{short} State what the person needs and why, in a few sentences.",
                },
                {
                    "name": "mediator",
                    "role": "Finds what all sides can accept.",
                    "system_message": f"{short} Weigh the sides and propose what all can accept.",
                },
            ],
        }
    if stems & _PRODUCES:
        return {
            "kind": "task_execution",
            "max_rounds": 3,
            "system_message": f"{told} Work the task off and state the result. End with the word TERMINATE.",
        }
    return {
        "kind": "conversational",
        "system_message": f"{told} Answer directly and briefly, and say so where you aren't sure.",
    }


def _crew(entry: Entry, stems: frozenset[str]) -> Data:
    told, short = instructions(entry), in_short(entry)
    members = [_member("specialist", "Specialist", entry, f"Do this well: {entry.label}", told)]
    tasks = [_task("work", "specialist", f"{entry.label}: {{input}}", "The work, done, and what it rests on")]
    if stems & _LONG_TERM:
        members.insert(0, _member("planner", "Planner", entry, "Say what has to be done, and in which order", short))
        tasks.insert(0, _task("plan", "planner", "Plan the work for: {input}", "A few steps, in order"))
        tasks[1]["context"] = ["plan"]
    if stems & _CHECKED:
        members.append(_member("reviewer", "Reviewer", entry, "Find what is wrong or missing in the work", short))
        check = _task("check", "reviewer", "Check the work for: {input}", "The checked work, in full")
        tasks.append(check | {"context": ["work"]})
    handed_down = len(members) > 1 and bool(stems & _HANDED_DOWN)
    return {"process": "hierarchical" if handed_down else "sequential", "members": members, "tasks": tasks}


def _member(name: str, role: str, entry: Entry, goal: str, told: str) -> Data:
    return {"name": name, "role": f"{role} for {entry.label}"[:LONGEST_SHORT_TEXT], "goal": goal, "backstory": told}


def _task(name: str, member: str, description: str, expected: str) -> Data:
    return {"name": name, "member": member, "description": description, "expected_output": expected}


def _graph(entry: Entry, stems: frozenset[str]) -> Data:
    told, short = instructions(entry), in_short(entry)
    if stems & _SIDES:
        return {
            "start": ["facts", "limits"],
            "output": "{conclusion}",
            "nodes": [
                _prompt("facts", short, "List what is known about: {input}", next=["conclusion"]),
                _prompt("limits", short, "List what is missing or uncertain about: {input}", next=["conclusion"]),
                _prompt("conclusion", told, "Answer {input} from these.\nKnown: {facts}\nMissing: {limits}"),
            ],
        }
    if stems & _DEPENDS:
        return {
            "start": ["triage"],
            "nodes": [
                {
                    "type": "branch",
                    "name": "triage",
                    "cases": [{"to": "in_full", "longer_than": 200}, {"to": "in_full", "contains": "detail"}],
                    "otherwise": "in_brief",
                },
                _prompt("in_brief", short, "Say in one or two sentences: {input}", on_error="instead"),
                _prompt("in_full", told, "Go through this step by step: {input}", on_error="instead"),
                _prompt("instead", short, "This failed ({error}). Say what can be done instead for: {input}"),
            ],
        }
    return {
        "start": ["prepare"],
        "output": "{carry_out}",
        "nodes": [
            _prompt("prepare", short, "Name the steps that this needs: {input}", next=["carry_out"]),
            _prompt("carry_out", told, "Carry the steps out for {input}\n{prepare}"),
        ],
    }


def _prompt(name: str, told: str, prompt: str, **rest: Any) -> Data:
    return {"type": "prompt", "name": name, "system_message": told, "prompt": prompt, **rest}
