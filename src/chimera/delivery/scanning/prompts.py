"""What an agent is told: instructions that give away too much, and texts of strangers that become instructions.

Where a caller's text goes is known from the definition: `{input}`, or the output of a node that reads from outside, in
system instructions makes them anybody's. The other rules look for words; they are few, need a sentence that says it
plainly, and pass over one that forbids it. They are a review's first look, not a guard.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from chimera.agents.compile import CanonicalDefinition
from chimera.delivery.scanning.model import Place, Result, Severity, found
from chimera.delivery.scanning.secrets import strings

INSTRUCTIONS = frozenset(["system_message", "role", "goal", "backstory"])
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]{0,62})\}")
_SENTENCE = re.compile(r"[^.!?\n]+")
_FORBIDS = re.compile(
    r"(?i)\b(?:never|not|don't|do not|cannot|can't|refuse|without|must not|no one|nobody|avoid|decline)\b"
)
_HIDDEN = re.compile("[\U000e0000-\U000e007f\u202a-\u202e\u2066-\u2069]")
_INVISIBLE = re.compile("[\u200b\u2060\u2061-\u2064\ufeff\u180e]")

_SECRETS = (
    "passwords?|api[ -]?keys?|access[ -]?tokens?|secrets?|credentials?|private keys?|environment variables|"
    "system (?:prompt|message)|your instructions"
)
_RIGHTS = "access|authority|control|permissions?|privileges?"
_RULES = "rules|policies|restrictions|limits|instructions|guidelines|safeguards"
_PEOPLE = "user|caller|human|owner|operator"
_THEIRS = "passwords?|secrets?|credentials?|keys?|data|prices?"
_SENTENCES: tuple[tuple[str, Severity, re.Pattern[str], str, str], ...] = (
    (
        "gives-secrets",
        "high",
        re.compile(
            r"(?i)\b(?:reveal|show|print|return|repeat|output|tell|give|share|include|send|disclose)\b[^.]{0,60}?"
            rf"\b(?:{_SECRETS})\b"
        ),
        "instructions to give out secrets",
        "take the sentence out: an agent needs no instruction to tell what is secret",
    ),
    (
        "unbounded",
        "medium",
        re.compile(
            r"(?i)\b(?:do (?:anything|whatever)|"
            rf"(?:full|unlimited|unrestricted|complete|root|admin(?:istrator)?) (?:{_RIGHTS})|"
            r"no (?:restrictions|limits|limitations|rules)|by any means|whatever it takes|"
            r"without (?:asking|confirmation|approval|permission|restrictions?)|always (?:comply|obey)|"
            r"(?:ignore|bypass|disregard|override) (?:all |any |the |every )?(?:previous |other |safety )?"
            rf"(?:{_RULES})|execute (?:any|every|all) (?:command|code|request|instruction)s?|"
            r"never (?:refuse|decline|ask))\b"
        ),
        "authority without bounds",
        "say what the agent may do, and when it must ask",
    ),
    (
        "tool-poisoning",
        "high",
        re.compile(
            rf"(?i)(?:do not|don't|never) (?:tell|mention|inform|show|reveal|disclose)[^.]{{0,30}}\b(?:the )?"
            rf"(?:{_PEOPLE})s?\b(?! (?:their|his|her|your|the|any)? ?(?:{_THEIRS}))|"
            r"<\s*(?:important|system|secret|hidden)\s*>|"
            r"(?:~|\$HOME|/root|/home/\w+)/\.(?:ssh|aws|kube|config|netrc|npmrc|docker)|\bid_(?:rsa|ed25519)\b|"
            r"/etc/(?:passwd|shadow)|169\.254\.169\.254|"
            r"\bbefore (?:using|calling) (?:any|every|all)(?: other)? tools?\b"
        ),
        "what hides something from people, or reaches for keys",
        "take it out, and look where the text came from",
    ),
)
_OPPOSITE = frozenset(["unbounded", "tool-poisoning"])
"""Rules whose own words forbid something, so that a sentence which does is no exception."""


def prompts_of(value: CanonicalDefinition, untrusted_nodes: frozenset[str] = frozenset()) -> Iterator[Result]:
    """Findings about one agent's texts; `untrusted_nodes` are nodes of its graph whose output strangers write."""
    told: dict[str, Any] = {
        "metadata": {"description": value.agent.description},
        "behaviour": msgspec.to_builtins(value.agent.behaviour),
        "tools": [
            {"description": tool.get("description"), "parameters": tool.get("parameters")}
            for tool in msgspec.to_builtins(value.agent.tools)
        ],
    }
    for field, key, text in strings(told):
        if key in INSTRUCTIONS:
            yield from _placeholders(field, text, untrusted_nodes)
        yield from _characters(field, text)
        yield from _words(field, text)


def _placeholders(field: str, text: str, untrusted_nodes: frozenset[str]) -> Iterator[Result]:
    for name in dict.fromkeys(_PLACEHOLDER.findall(text)):
        if name != "input" and name not in untrusted_nodes:
            continue
        whose = "the caller's text" if name == "input" else f"the output of {name!r}, which comes from outside,"
        yield _found(
            "instructions-of-strangers",
            "high",
            f"{whose} becomes part of the instructions (`{{{name}}}`)",
            "put it into the prompt, or a task's description, and keep instructions your own",
            field,
            name,
        )


def _characters(field: str, text: str) -> Iterator[Result]:
    if hidden := _HIDDEN.findall(text):
        yield _found(
            "hidden-text",
            "high",
            f"{len(hidden)} characters that models read and people don't see (U+{ord(hidden[0]):04X})",
            "take them out, and look where the text came from",
            field,
            f"U+{ord(hidden[0]):04X}",
        )
    elif invisible := _INVISIBLE.findall(text):
        yield _found(
            "hidden-text",
            "medium",
            f"{len(invisible)} invisible characters (U+{ord(invisible[0]):04X})",
            "take them out",
            field,
            f"U+{ord(invisible[0]):04X}",
        )


def _words(field: str, text: str) -> Iterator[Result]:
    for rule, severity, pattern, what, step in _SENTENCES:
        for sentence in _SENTENCE.findall(text) if rule not in _OPPOSITE else (text,):
            match = pattern.search(sentence)
            if match is None or (rule not in _OPPOSITE and _FORBIDS.search(sentence)):
                continue
            if rule == "unbounded" and _FORBIDS.search(text[max(0, match.start() - 30) : match.start()]):
                continue
            yield _found(rule, severity, f"{what}: {match[0].strip()[:120]!r}", step, field, match[0].strip()[:120])
            break


def _found(rule: str, severity: Severity, message: str, next_step: str, field: str, subject: str) -> Result:
    return found("prompts", rule, severity, message, next_step=next_step, place=Place(field=field), subject=subject)
