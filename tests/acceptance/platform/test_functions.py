"""A function elsewhere that answers as an agent, on a whole platform: a real host asks, the gateway calls."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

DEFINITION = """
schema_version: "ADaC v2.0"
metadata: {{name: {name}, version: "1.0.0", description: Answers from elsewhere.}}
specification: {{framework: function}}
capabilities: {{primary_functions: [answer]}}
behaviour: {{function: {{endpoint: {{url: "{url}", credential: "secret:FUNCTION", timeout_seconds: 5}}}}}}
"""


@pytest.fixture(scope="module")
def function() -> Iterator[Any]:
    """A server on loopback; `seen` is what it was sent."""
    seen: list[tuple[dict[str, str], Any]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((dict(self.headers), sent))
            data = json.dumps({"output": f"{len(sent['messages'])}: {sent['input']}"}).encode()
            self.send_response(503 if sent["input"] == "busy" else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.seen = seen  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_function_is_called_like_any_agent(new_platform: Callable[..., Any], function: Any, tmp_path: Path) -> None:
    def allow(home: Path) -> None:
        (home / "settings.toml").write_text('[functions]\nallow = ["127.0.0.0/8"]\n')

    url = f"http://127.0.0.1:{function.server_port}/fn"
    (tmp_path / "agent.yaml").write_text(DEFINITION.format(name="elsewhere", url=url))
    (tmp_path / "away.yaml").write_text(DEFINITION.format(name="away", url="http://127.0.0.1:1/"))
    platform = new_platform(tmp_path / "home", prepare=allow, CHIMERA_SECRET_FUNCTION="s3cret")
    try:
        platform.ok("apply", str(tmp_path / "agent.yaml"), str(tmp_path / "away.yaml"))
        answers = [
            platform.data("invoke", "elsewhere", text, "--session", "desk")["output"] for text in ("hello", "again")
        ]
        assert answers == ["1: hello", "3: again"], "the conversation goes along"
        headers, sent = function.seen[-1]
        assert headers["Authorization"] == "Bearer s3cret" and sent["agent"] == "elsewhere"
        assert "Idempotency-Key" in headers, "a session makes a run, and its work may be asked for again"
        assert "1: streamed" in platform.ok("invoke", "elsewhere", "streamed")
        busy = platform.run("invoke", "elsewhere", "busy")
        assert busy.returncode == 69 and "answered 503" in busy.stderr
        away = platform.run("invoke", "away", "hello")
        assert away.returncode == 69 and "can't be reached" in away.stderr
        assert "s3cret" not in platform.ok("logs", "elsewhere")
    finally:
        assert platform.stop() == 0
