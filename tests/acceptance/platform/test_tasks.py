"""Tasks by the command line, against a real platform: done once, followed, cancelled, and kept through kill -9."""

from pathlib import Path
from typing import Any

HELLO = """\
schema_version: "ADaC v2.0"
metadata: {name: worker, version: "1.0.0", description: Works.}
specification: {framework: function}
capabilities: {primary_functions: [work]}
behaviour: {function: {system_message: Work.}}
"""


def _applied(platform: Any, tmp_path: Path) -> None:
    definition = tmp_path / "worker.yaml"
    definition.write_text(HELLO)
    platform.ok("apply", str(definition))


def test_a_task_is_submitted_followed_shown_and_cancelled(platform: Any, tmp_path: Path) -> None:
    _applied(platform, tmp_path)
    done = platform.data("tasks", "submit", "worker", "the report", "--key", "report-1", "--watch")
    assert (done["state"], [change["why"] for change in done["history"]]) == (
        "succeeded",
        ["submitted", "claimed", "succeeded"],
    )
    name = done["task"]
    assert platform.ok("tasks", "submit", "worker", "the report", "--key", "report-1").strip() == name
    assert platform.data("tasks", "show", "worker", name)["result"] == done["result"]
    assert done["result"]["output"] in platform.ok("tasks", "watch", "worker", name)
    later = platform.ok("tasks", "submit", "worker", "later", "--delay", "1h", "--priority", "7").strip()
    assert platform.data("tasks", "list", "worker", "--state", "waiting")[0]["task"] == later
    assert "is cancelled" in platform.ok("tasks", "cancel", "worker", later)
    assert platform.run("tasks", "watch", "worker", later).returncode != 0
    assert len(platform.data("tasks", "list", "worker")) == 2


def test_no_accepted_task_is_lost_when_the_gateway_is_killed(platform: Any, tmp_path: Path) -> None:
    _applied(platform, tmp_path)
    names = [platform.ok("tasks", "submit", "worker", f"slow {number}").strip() for number in range(6)]
    killed = platform.kill("gateway")
    for name in names:
        assert "late" in platform.ok("tasks", "watch", "worker", name)
    assert platform.pids()["gateway"] != killed
    shown = [platform.data("tasks", "show", "worker", name) for name in names]
    assert {task["state"] for task in shown} == {"succeeded"}
    assert "worker-lost" in {change["why"] for task in shown for change in task["history"]}
