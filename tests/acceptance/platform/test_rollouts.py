"""Rollouts on a real platform: green loaded ahead, calls moved by weight, a bad revision found by calls and taken back.

The control plane is killed while a rollout is under way, and comes back.
"""

import json
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

DEFINITION = """\
schema_version: "ADaC v2.0"
metadata: {{name: {name}, version: "{version}", description: Says which revision it is.}}
specification: {{framework: function, entrypoint: "mine:factory", source: ./src}}
capabilities: {{primary_functions: [answer]}}
"""
CODE = """\
def factory(context):
    def answer(prompt, call):
        if SAYS == "fault":
            raise RuntimeError("this revision is bad")
        return SAYS
    return answer


SAYS = {says!r}
"""
NAMES = ("uno", "due", "tre")
SETTINGS = ("steps=20,60", "step_seconds=2", "bake_seconds=4", "waves=1", "least_calls=10")


@pytest.fixture(scope="module")
def rolling(tmp_path_factory: pytest.TempPathFactory, new_platform: Callable[..., Any]) -> Iterator[Any]:
    running = new_platform(tmp_path_factory.mktemp("rolling") / "home")
    yield running
    assert running.stop() == 0


def write(folder: Path, version: str, says: str) -> Path:
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "src" / "mine.py").write_text(CODE.format(says=says))
    for name in NAMES:
        (folder / f"{name}.yaml").write_text(DEFINITION.format(name=name, version=version))
    return folder


@contextmanager
def callers(platform: Any) -> Iterator[dict[str, int]]:
    """Calls of all agents, one after the other, until left: how often each answer came."""
    told: dict[str, int] = {}
    ended = threading.Event()

    def call() -> None:
        while not ended.is_set():
            for name in NAMES:
                url = f"{platform.url}/v1/tenants/default/agents/{name}/invoke"
                headers = {"Authorization": f"Bearer {platform.key}", "Content-Type": "application/json"}
                request = urllib.request.Request(url, b'{"input": "who"}', headers)
                try:
                    with urllib.request.urlopen(request, timeout=30) as answer:
                        said = json.loads(answer.read())["output"]
                except urllib.error.HTTPError as error:
                    said = f"failed: {error.code}"
                told[said] = told.get(said, 0) + 1

    threads = [threading.Thread(target=call) for _ in range(2)]
    for one in threads:
        one.start()
    try:
        yield told
    finally:
        ended.set()
        for one in threads:
            one.join()


def start(platform: Any, folder: Path) -> Any:
    settings = [part for one in SETTINGS for part in ("--set", one)]
    return platform.data("rollout", "start", str(folder), *settings)


def watched(platform: Any, rollout: str) -> "subprocess.CompletedProcess[str]":
    """Follow it; where the control plane is away, again."""
    for _ in range(30):
        done: subprocess.CompletedProcess[str] = platform.run("rollout", "watch", rollout)
        if done.returncode in (0, 65):
            return done
        threading.Event().wait(1.0)
    raise AssertionError(done.stderr)


def test_a_good_revision_becomes_live_under_calls_and_no_call_fails(rolling: Any, tmp_path: Path) -> None:
    rolling.ok("apply", str(write(tmp_path, "1.0.0", "one")))
    with callers(rolling) as told:
        made = start(rolling, write(tmp_path, "1.1.0", "two"))
        rolling.kill("control-plane")
        done = watched(rolling, made["id"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(told) == {"one", "two"}
    assert rolling.ok("invoke", "uno", "who").strip() == "two"
    shown = rolling.data("rollout", "show", made["id"])
    assert (shown["state"], shown["phases"]) == ("done", {"done": 3})
    assert all(one["new"][0] > 0 and one["old"][0] > 0 for one in shown["members"])


def test_a_bad_revision_is_taken_back_by_itself(rolling: Any, tmp_path: Path) -> None:
    rolling.ok("apply", str(write(tmp_path, "1.0.0", "one")))
    with callers(rolling) as told:
        made = start(rolling, write(tmp_path, "1.2.0", "fault"))
        done = watched(rolling, made["id"])
    assert done.returncode == 65, done.stdout
    assert "it is worse than before" in done.stdout
    assert {rolling.ok("invoke", name, "who").strip() for name in NAMES} == {"one"}
    failed = sum(count for said, count in told.items() if said.startswith("failed"))
    assert 0 < failed < told["one"]
    assert rolling.data("describe", "uno")["version"] == "1.0.0"


def test_an_aborted_rollout_leaves_all_as_it_was(rolling: Any, tmp_path: Path) -> None:
    rolling.ok("apply", str(write(tmp_path, "1.0.0", "one")))
    made = start(rolling, write(tmp_path, "1.3.0", "three"))
    assert "running" in rolling.ok("rollout", "abort", made["id"], "--reason", "not today")
    assert watched(rolling, made["id"]).returncode == 65
    assert {rolling.ok("invoke", name, "who").strip() for name in NAMES} == {"one"}
    assert made["id"] in rolling.ok("audit", "list", "--action", "rollout.aborted")
