"""What an agent's tools may do, against what its definition says that the agent is for.

Wildcards, connections without encryption, programs fetched when they are needed, shells; hosts outside for an agent
whose data must stay inside; writing tools of an agent that says that it only reads. Where data, untrusted text and a
way out meet is `flows`.
"""

import re
from collections.abc import Iterator, Sequence

from chimera.agents.compile import CanonicalDefinition
from chimera.delivery.scanning.flows import CONFIDENTIAL
from chimera.delivery.scanning.model import Place, Result, Severity, found
from chimera.delivery.scanning.reaching import host_name, is_inside, reach_of
from chimera_host.contract.tools import AgentTool, McpTool, MessageTool, Tool

_FETCHERS = {
    "npx": "npx",
    "bunx": "npx",
    "pnpx": "npx",
    "uvx": "uvx",
    "pipx": "uvx",
    "bun": "npx",
    "npm": "npx",
    "pnpm": "npx",
}
_CONTAINERS = frozenset(["docker", "podman", "nerdctl"])
_SHELLS = frozenset(["sh", "bash", "zsh", "dash", "ksh", "fish", "cmd", "powershell", "pwsh"])
_PINNED = {
    "npx": re.compile(r"^(?:@[^/@]+/)?[^@]+@\d+\.\d+\.\d+[\w.+-]*$"),
    "uvx": re.compile(r"^[\w.-]+(?:\[[^\]]*\])?(?:==|@)\d[\w.!+-]*$"),
}
_HOW = {"npx": "@1.2.3", "uvx": "==1.2.3"}
_TWO_LEVELS = re.compile(r"^(?:co|com|org|net|gov|edu|ac|or|ne|go)\.[a-z]{2}$")
_SHARED = (
    *(
        "github.io",
        "githubusercontent.com",
        "amazonaws.com",
        "cloudfront.net",
        "azurewebsites.net",
        "blob.core.windows.net",
    ),
    *("appspot.com", "run.app", "herokuapp.com", "vercel.app", "netlify.app", "pages.dev", "workers.dev", "ngrok.io"),
    *(
        "ngrok-free.app",
        "googleusercontent.com",
        "storage.googleapis.com",
        "firebaseapp.com",
        "web.app",
        "onrender.com",
    ),
)
_RUNS = re.compile(
    r"(?i)(?:^|[_.-])(?:exec|execute|run|eval)?_?(?:shell|bash|command|cmd|terminal|python|code|script|sql_raw|subprocess)(?:$|[_.-])|^exec$|^eval$"
)
_WRITES = re.compile(
    r"(?i)(?:^|[_.-])(?:write|delete|remove|update|create|insert|drop|send|post|put|patch|move|rename|upload|publish|merge|push|pay|transfer|refund|cancel|approve|execute)(?:$|[_.-])"
)
_READ_ONLY = re.compile(
    r"(?i)\bread[- ]only\b|\bonly (?:reads?|looks|searches|answers|summari[sz]es)\b|"
    r"\b(?:never|does not|doesn't|cannot|can't|without) (?:chang|writ|modif|delet|send|creat)\w*"
)
NARROW = "name the hosts that it needs in `limits.egress`"


def permissions_of(value: CanonicalDefinition, trusted: Sequence[str]) -> Iterator[Result]:
    """Findings about one agent's tools."""
    read_only = _READ_ONLY.search(" ".join([value.agent.description, *value.agent.primary_functions]))
    for index, tool in enumerate(value.agent.tools):
        yield from _egress(tool, index, trusted)
        if isinstance(tool, McpTool):
            yield from _server(tool, index, trusted)
        yield from _data(value, tool, index, trusted)
        if read_only and (names := [name for name in _names(tool) if _WRITES.search(name)]):
            yield _found(
                "writes",
                "high",
                f"the agent says {read_only[0]!r}, and may use {', '.join(names)[:200]}",
                "take these tools out, or say what the agent changes",
                f"tools[{index}]",
                ",".join(names),
            )
    yield from _shared_secrets(value, trusted)


def _names(tool: Tool) -> tuple[str, ...]:
    return tool.allow if isinstance(tool, McpTool) else (tool.name,)


def _egress(tool: Tool, index: int, trusted: Sequence[str]) -> Iterator[Result]:
    for number, pattern in enumerate(tool.limits.egress):
        host, field = host_name(pattern), f"tools[{index}].limits.egress[{number}]"
        if not host.startswith("*.") or is_inside(host, trusted):
            continue
        domain = host.removeprefix("*.")
        if "." not in domain or _TWO_LEVELS.match(domain):
            yield _found(
                "wildcard", "critical", f"{tool.name} may connect to anybody under {host}", NARROW, field, host
            )
        elif domain in _SHARED:
            yield _found(
                "wildcard",
                "high",
                f"{tool.name} may connect to {host}, where anybody can have a name",
                NARROW,
                field,
                host,
            )
        else:
            yield _found(
                "wildcard", "medium", f"{tool.name} may connect to every name of {domain}", NARROW, field, host
            )


def _server(tool: McpTool, index: int, trusted: Sequence[str]) -> Iterator[Result]:
    """Servers: how they are reached or started, and what they run for the agent."""
    if tool.url is not None and tool.url.startswith("http://"):
        host = tool.url.removeprefix("http://").partition("/")[0]
        if not is_inside(host_name(host), trusted):
            severity: Severity = "high" if tool.credentials else "medium"
            yield _found(
                "unencrypted",
                severity,
                f"{tool.name} is reached without encryption" + (", and shown credentials" if tool.credentials else ""),
                "use https",
                f"tools[{index}].url",
                host,
            )
    if tool.command is not None:
        yield from _command(tool, tool.command, index)
    if runs := [name for name in tool.allow if _RUNS.search(name)]:
        yield _found(
            "runs-code",
            "medium",
            f"{tool.name} runs commands or code that the model writes ({', '.join(runs)[:100]})",
            "allow tools that do one thing, or isolate the agent (`isolation: dedicated`)",
            f"tools[{index}].allow",
            ",".join(runs),
        )


def _command(tool: McpTool, command: Sequence[str], index: int) -> Iterator[Result]:
    field = f"tools[{index}].command"
    program = command[0].rpartition("/")[2]
    words = [word for word in command[1:] if not word.startswith("-")]
    if program in ("bun", "npm", "pnpm", "pipx"):
        words = words[1:] if words[:1] in (["x"], ["exec"], ["dlx"], ["run"]) else []
    if program in _FETCHERS and words:
        kind = _FETCHERS[program]
        if not _PINNED[kind].match(words[0]):
            yield _found(
                "unlocked-program",
                "high",
                f"{tool.name} starts whatever {words[0]!r} is on that day",
                f"name one version ({words[0]}{_HOW[kind]}), or bring it in the source folder",
                field,
                words[0],
            )
    elif program in _CONTAINERS and (image := _image(command)) is not None and "@sha256:" not in image:
        yield _found(
            "unlocked-program",
            "high",
            f"{tool.name} starts the image {image!r}, which may become another",
            "name it by digest (`@sha256:…`)",
            field,
            image,
        )
    elif program in _SHELLS:
        text = " ".join(command)
        fetched = re.search(r"(?:curl|wget)\b[^|;&]*\|\s*(?:sudo\s+)?(?:\w*sh|python\d?|node)\b", text)
        yield _found(
            "shell",
            "critical" if fetched else "medium",
            f"{tool.name} is started by a shell" + (", which runs what it fetches" if fetched else ""),
            "name the program and its arguments themselves",
            field,
            program,
        )


def _image(command: Sequence[str]) -> str | None:
    if "run" not in command:
        return None
    rest = list(command[list(command).index("run") + 1 :])
    takes_value = {
        "-e",
        "--env",
        "-v",
        "--volume",
        "--mount",
        "--name",
        "--network",
        "-p",
        "--publish",
        "-u",
        "--user",
        "-w",
        "--env-file",
        "--entrypoint",
    }
    while rest:
        word = rest.pop(0)
        if word in takes_value:
            rest[:1] = []
        elif not word.startswith("-"):
            return word
    return None


def _data(value: CanonicalDefinition, tool: Tool, index: int, trusted: Sequence[str]) -> Iterator[Result]:
    """Data that must stay inside, and a tool that reaches outside."""
    if value.data_class not in CONFIDENTIAL or isinstance(tool, (AgentTool, MessageTool)):
        return
    reach = reach_of(tool, index, trusted)
    if reach.outside:
        yield _found(
            "data-class",
            "high",
            f"the agent's data is {value.data_class}, and {tool.name} may send it to {', '.join(reach.outside)[:200]}",
            "trust the host (`scanning.trusted_hosts`), take the tool out, or give this data to another agent",
            f"tools[{index}]",
            ",".join(reach.outside),
        )


def _shared_secrets(value: CanonicalDefinition, trusted: Sequence[str]) -> Iterator[Result]:
    """One secret that is shown to hosts of different owners."""
    shown: dict[str, dict[str, int]] = {}
    for index, tool in enumerate(value.agent.tools):
        if isinstance(tool, (AgentTool, MessageTool)):
            continue
        for secret in tool.credentials.values():
            for host in reach_of(tool, index, trusted).outside:
                shown.setdefault(secret, {}).setdefault(".".join(host.rsplit(".", 2)[-2:]), index)
    for secret, owners in shown.items():
        if len(owners) > 1:
            index = max(owners.values())
            yield _found(
                "shared-secret",
                "medium",
                f"{secret} is given to tools that reach {', '.join(sorted(owners))}",
                "give each its own secret",
                f"tools[{index}].credentials",
                secret,
            )


def _found(rule: str, severity: Severity, message: str, next_step: str, field: str, subject: str) -> Result:
    return found("permissions", rule, severity, message, next_step=next_step, place=Place(field=field), subject=subject)
