"""An MCP server over stdio that misbehaves in the way it is told: python rude_server.py WAY [FILE]."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

WAY = sys.argv[1]
VERSION = "1999-01-01" if WAY == "old" else "2025-06-18"


def say(message: object) -> None:
    print(json.dumps(message), flush=True)


def answer(request: dict, result: object) -> None:
    say({"jsonrpc": "2.0", "id": request["id"], "result": result})


def listing(request: dict) -> None:
    tools = [{"name": "do", "inputSchema": {"type": "object"}}, {"name": "other", "inputSchema": {}}]
    if WAY == "pages":
        page = int((request.get("params") or {}).get("cursor", "0"))
        answer(request, {"tools": tools[page : page + 1], **({"nextCursor": "1"} if page == 0 else {})})
    elif WAY == "endless-pages":
        answer(request, {"tools": [], "nextCursor": "again"})
    elif WAY == "bad-listing":
        answer(request, {"tools": [{"title": 3}]})
    elif WAY == "bad-schema":
        answer(
            request, {"tools": [{"name": "do", "inputSchema": {"type": "object", "properties": {"a": {"type": "no"}}}}]}
        )
    else:
        answer(request, {"tools": tools})


def call(request: dict) -> None:
    match WAY:
        case "garbage":
            print("this is no message\n\x00\xff[[[", flush=True)
            say([1, 2])
            say({"jsonrpc": "2.0", "id": {"no": "key"}, "result": {}})
            answer(request, {"content": [{"type": "text", "text": "fine"}]})
        case "flood":
            sys.stdout.write("x" * 5_000_000)
            sys.stdout.flush()
            time.sleep(30)
        case "chatty":
            for number in range(20_000):
                print(f"line {number} {'y' * 80}", file=sys.stderr)
            answer(request, {"content": []})
        case "asks":
            say({"jsonrpc": "2.0", "id": "s1", "method": "ping"})
            say({"jsonrpc": "2.0", "id": "s2", "method": "sampling/createMessage", "params": {}})
            heard = [json.loads(sys.stdin.readline()) for _ in range(2)]
            answer(request, {"content": [{"type": "text", "text": json.dumps(heard)}]})
        case "text-ids":
            say({"jsonrpc": "2.0", "id": str(request["id"]), "result": {"content": [{"type": "text", "text": "ok"}]}})
        case "error":
            say(
                {
                    "jsonrpc": "2.0",
                    "id": request["id"],
                    "error": {"code": -32000, "message": f"no: {os.environ['KEY']}"},
                }
            )
        case "no-result":
            say({"jsonrpc": "2.0", "id": request["id"]})
        case "deaf":
            time.sleep(60)
        case "die-once":
            marker = Path(sys.argv[2])
            if not marker.exists():
                marker.write_text("died")
                os._exit(3)
            answer(request, {"content": [{"type": "text", "text": "alive again"}]})
        case _:
            answer(request, {"content": [{"type": "text", "text": "done"}]})


def main() -> None:
    if WAY == "dead":
        print("no licence", file=sys.stderr, flush=True)
        sys.exit(5)
    if WAY == "mute":
        time.sleep(60)
    if WAY == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
        Path(sys.argv[2]).write_text(f"{os.getpid()} {child.pid}")
    for line in sys.stdin:
        request = json.loads(line)
        match request["method"]:
            case "initialize":
                capabilities = {} if WAY == "no-tools" else {"tools": {}}
                answer(request, {"protocolVersion": VERSION, "capabilities": capabilities, "serverInfo": {}})
            case "tools/list":
                listing(request)
            case "tools/call":
                call(request)
    if WAY == "stubborn":
        time.sleep(120)


main()
