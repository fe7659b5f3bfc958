"""A plain FastAPI + uvicorn server that holds all agents of a file in one process, each made on its first call.

    python server.py AGENTS.json MODEL_URL PORT EXTRA_PACKAGES

EXTRA_PACKAGES is a folder with FastAPI and uvicorn, searched after the environment's own packages.
"""

import json
import sys
import threading
from typing import Any

sys.path.append(sys.argv[4])

import uvicorn
from fastapi import FastAPI
from plain import Answer, make

with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123  (as plain as the rest of this folder)
    definitions: dict[str, Any] = {agent["name"]: agent for agent in json.load(file)}
made: dict[str, Answer] = {}
lock = threading.Lock()
app = FastAPI()


@app.post("/agents/{name}")
def invoke(name: str, body: dict[str, str]) -> dict[str, str]:
    """Call one agent."""
    answer = made.get(name)
    if answer is None:
        with lock:
            answer = made.get(name) or made.setdefault(name, make(definitions[name], sys.argv[2]))
    return {"output": answer(body["input"])}


@app.get("/ready")
def ready() -> dict[str, int]:
    """How many agents are made."""
    return {"made": len(made)}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[3]), log_level="warning", access_log=False)
