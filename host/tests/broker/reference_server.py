"""An MCP server on the reference implementation, run by the tests as a program: `mcp` 1.x and 2.x.

python reference_server.py stdio | http PORT [--json]
"""

import os
import sys
import time
from pathlib import Path

try:
    from mcp.server.mcpserver import Context
    from mcp.server.mcpserver import MCPServer as Server  # 2.x
except ImportError:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as Server  # 1.x

server = Server("reference")


@server.tool()
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def echo(text: str) -> str:
    """Say it again."""
    return text


@server.tool()
def environment() -> dict[str, str]:
    """The server's environment."""
    return dict(os.environ)


@server.tool()
def folder() -> str:
    """Where it runs."""
    return str(Path.cwd())


@server.tool()
def fail(text: str) -> str:
    """Raise an error."""
    raise ValueError(text)


@server.tool()
async def hang(seconds: float) -> str:
    """Take long."""
    import anyio

    Path("hanging").write_text("yes")  # noqa: ASYNC240 - the test reads it
    try:
        await anyio.sleep(seconds)
    except BaseException:
        Path("cancelled").write_text("yes")  # noqa: ASYNC240 - the test reads it
        raise
    return "slept"


@server.tool()
def die() -> str:
    """End the process in the middle of the call."""
    print("dying now, with token-of-the-server", file=sys.stderr, flush=True)
    time.sleep(0.05)
    os._exit(7)


@server.tool()
def large(size: int) -> str:
    """Answer much."""
    return "x" * size


@server.tool()
def pid() -> str:
    """The process."""
    return str(os.getpid())


@server.tool()
def key(context: Context) -> str:
    """The idempotency key that the call came with."""
    meta = context.request_context.meta
    sent = meta if isinstance(meta, dict) else (meta and meta.model_extra) or {}
    return sent.get("chimera/idempotency-key", "none")


@server.tool()
def hidden() -> str:
    """Not on anybody's list."""
    return "hidden"


def main() -> None:
    if sys.argv[1] == "stdio":
        server.run(transport="stdio")
        return
    port, as_json = int(sys.argv[2]), "--json" in sys.argv
    if hasattr(server, "settings") and hasattr(server.settings, "port"):  # 1.x
        server.settings.port, server.settings.json_response = port, as_json
        server.run(transport="streamable-http")
    else:
        server.run(transport="streamable-http", port=port, json_response=as_json)


main()
