"""The tutorial, done: its files are written, its commands run, in its order, against a Chimera that is really up.

The model is the scripted one, so that answers are the same every time. Left out is what never ends (`up` itself, `top`,
following a log) and what was done before (`make`).
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NEEDED = ("AUTOGEN", "LANGGRAPH")
ENDLESS = ("up", "top")
UP_WITHIN = 300.0
FILES = {
    "packing/code/clothes.py": "def wear(",
    "packing/packing.yaml": "name: packing-advisor",
    "traveller.yaml": "name: traveller",
}
"""Files that the text between the blocks names, each with words that only its block has."""

missing = [name for name in NEEDED if f"CHIMERA_RUNTIME_{name}_PYTHON" not in os.environ]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)} (`chimera runtime install`)"),
    pytest.mark.skipif(sys.platform == "win32", reason="Windows runs Chimera in WSL2"),
]


class Reader:
    """Somebody at a terminal in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if name != "CHIMERA_HOME"}

    def chimera(self, *words: str, said: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "chimera.entrypoints.cli.main", *words],
            cwd=self.folder,
            env=self.environment,
            input=said,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"chimera {shlex.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    made = Reader(tmp_path_factory.mktemp("agents"))
    (made.folder / ".chimera").mkdir()  # what makes this folder a home
    with (made.folder / "up.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "chimera.entrypoints.cli.main", "up", "--port", "0", "--model", "scripted"],
            cwd=made.folder,
            env=made.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        endpoint = made.folder / ".chimera" / "run" / "endpoint.json"
        until = time.monotonic() + UP_WITHIN
        while not endpoint.exists():
            assert process.poll() is None, (made.folder / "up.log").read_text()
            assert time.monotonic() < until, "not up in time"
            time.sleep(0.1)  # a real process: there is no clock to turn
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_the_tutorial_can_be_done(reader: Reader) -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    shown = [found for found in BLOCK.finditer(text) if not found[2].startswith("$ ")]
    for name, mark in FILES.items():
        matching = [found[2] for found in shown if mark in found[2]]
        assert len(matching) == 1, name
        reader.write(name, matching[0])
    answers: dict[str, str] = {}
    for found in shown:
        for line in found[2].splitlines() if not found[1] else ():
            words = shlex.split(line, comments=True)
            if words[:1] != ["chimera"] or words[1] in ENDLESS or "--follow" in words:
                continue
            if words[1] == "delete":
                # What the text between the blocks asks for.
                reader.chimera("apply", "traveller.yaml")
                answers["traveller"] = reader.chimera("invoke", "traveller", "3")
            answers[line] = reader.chimera(*words[1:], said="Hello.\nAnd then?\n\n" if words[1] == "chat" else "")

    written = (reader.folder / "hello.yaml").read_text()
    assert written in text, "what `chimera init` writes is what the tutorial shows"
    assert "1 created" in answers["chimera apply hello.yaml"]
    assert "What can you do?" in answers['chimera invoke hello "What can you do?"']
    assert "wear a jacket" in answers["chimera invoke packing-advisor 12"]
    assert "Ask the person" in answers["chimera invoke packing-advisor warmish"]
    assert "wear a coat and gloves" in answers["traveller"]
    assert "0.1.0" in answers["chimera get revisions hello"]


def test_a_session_goes_on(reader: Reader) -> None:
    reader.chimera("init", "parrot")
    reader.chimera("apply", "parrot.yaml")
    reader.chimera("invoke", "parrot", "one", "--session", "tuesday")
    told = json.loads(reader.chimera("invoke", "parrot", "two", "--session", "tuesday", "--output", "json"))
    assert told["session"] == "tuesday"
    assert told["usage"]["prompt_tokens"] > 0


def test_openai_s_client_works_as_the_tutorial_says(reader: Reader) -> None:
    openai = pytest.importorskip("openai")
    endpoint = json.loads((reader.folder / ".chimera" / "run" / "endpoint.json").read_bytes())
    key = (reader.folder / ".chimera" / "chimera.key").read_text().strip()
    reader.chimera("init", "talker")
    reader.chimera("apply", "talker.yaml")
    with openai.OpenAI(base_url=f"{endpoint['public']}/v1", api_key=key) as client:
        chunks = client.chat.completions.create(
            model="agent/talker", messages=[{"role": "user", "content": "How do I begin?"}], stream=True
        )
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert "How do I begin?" in said
