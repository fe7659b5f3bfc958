"""What a function tool may ask for besides its arguments: a parameter of the type `ToolContext`.

    from chimera_host.broker.context import ToolContext

    def look_up(term: str, context: ToolContext) -> str:
        answer = context.http.request_blocking(
            "GET", f"https://api.example.com/terms/{term}",
            headers={"Authorization": f"Bearer {context.credentials['token']}"},
        )
        return answer.text

A call that goes on on another host may call a tool again that was running when the first host died. `idempotency_key`
is then the same: a tool with effects hands it on, or keeps it beside what it did. `context.http` sends one by itself,
made from it, with each request that may have effects (all but GET, HEAD and OPTIONS), as `Idempotency-Key`.

`context.http` only connects where the tool's `limits.egress` says. That is a courtesy to the function's author and no
sandbox: a function is plain code of the agent's owner, runs as the user who runs the host, and can open connections of
its own that nothing here sees. Where that matters, give the agent `isolation: dedicated` and a network policy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from chimera_host.broker.http import CheckedHttp
from chimera_host.ports import CallContext


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """The surroundings of one tool call.

    `credentials` are the values of the references that the tool's definition holds, by the names it gives them; they
    are fetched for this call, and must not be printed. `work_dir` is the agent's own folder. `call` is the running
    call: `call.remaining()` tells the seconds that are left, `call.chat_blocking(...)` asks the agent's model.
    `idempotency_key` names this call of the tool, whoever runs it; None where the call has no run.
    """

    tenant: str
    agent: str
    tool: str
    work_dir: str
    http: CheckedHttp
    call: CallContext = field(repr=False)
    idempotency_key: str | None = None
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
