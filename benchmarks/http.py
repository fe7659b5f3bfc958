"""One kept-open connection to the platform, for measurements with one client: its own cost is a fraction of a ms."""

import http.client
from typing import Any
from urllib.parse import urlsplit

import msgspec

TIMEOUT = 300.0


class Refused(Exception):
    """An answer that isn't a success, with its status and text."""


class Client:
    """Blocking JSON over HTTP."""

    def __init__(self, base: str, key: str | None = None) -> None:
        """Connect to `base` on first use."""
        parts = urlsplit(base)
        self._connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=TIMEOUT)
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    def get(self, path: str) -> Any:
        """The JSON at `path`."""
        return self._send("GET", path, None)

    def post(self, path: str, body: Any, **headers: str) -> Any:
        """Send JSON, return JSON."""
        return self._send("POST", path, msgspec.json.encode(body), headers)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str] | None = None) -> Any:
        self._connection.request(method, path, body=body, headers=self._headers | (headers or {}))
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise Refused(f"{method} {path}: {answer.status} {data[:500].decode(errors='replace')}")
        return msgspec.json.decode(data) if data else None
