"""What a person does with the command line, against a real platform: define, apply, call, look, delete."""

import concurrent.futures
import io
import tarfile
from pathlib import Path

import pytest
from openai import OpenAI

ECHO = """\
def factory(context):
    def answer(prompt, call):
        print("I print", prompt)
        turns = len(call.session.messages)
        return f"{context.document.name} got {prompt} after {turns}"
    return answer
"""


def definition(name: str, version: str = "1.0.0", **places: str) -> str:
    specification = places.get("specification", '{framework: function, entrypoint: "mine:factory", source: ./src}')
    return (
        'schema_version: "ADaC v2.0"\n'
        f"metadata: {{name: {name}, version: {version}, description: {places.get('description', 'Says it again')}}}\n"
        f"specification: {specification}\n"
        "capabilities: {primary_functions: [echo]}\n"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "mine.py").write_text(ECHO)
    return tmp_path


def test_from_a_definition_to_an_answer_and_back(platform, folder):
    file = folder / "echo.yaml"
    file.write_text(definition("echo"))
    assert "1 valid" in platform.ok("validate", str(file))
    assert platform.data("apply", str(file))["created"] == 1
    again = platform.data("apply", str(file))
    assert (again["created"], again["updated"], again["unchanged"]) == (0, 0, 1)
    assert [row["name"] for row in platform.data("get", "agents", "-q", "echo")] == ["echo"]
    described = platform.data("describe", "echo")
    assert described["definition"]["agent"]["source"]["entrypoint"] == "mine:factory"
    assert any("no sandbox" in note for note in described["notes"])
    assert platform.ok("invoke", "echo", "hello").strip() == "echo got hello after 0"
    assert platform.data("invoke", "echo", "hi")["output"] == "echo got hi after 0"
    assert "I print hello" in platform.ok("logs", "echo")
    file.write_text(definition("echo", "1.0.1", description="Says it once more"))
    (changed,) = platform.data("diff", str(file))
    assert changed["state"] == "changed" and changed["version_fits"]
    assert platform.data("apply", str(file))["updated"] == 1
    assert len(platform.data("get", "revisions", "echo")) == 2
    platform.ok("delete", "echo")
    gone = platform.run("invoke", "echo", "hello")
    assert gone.returncode == 65 and "echo" in gone.stderr and "Next: " in gone.stderr


def test_a_session_carries_the_conversation(platform, folder):
    (folder / "keeper.yaml").write_text(definition("keeper"))
    platform.ok("apply", str(folder))
    first = platform.ok("chat", "keeper", "--session", "mine", text="one\ntwo\n\n")
    assert "keeper got one after 0" in first and "keeper got two after 2" in first
    assert "after 4" in platform.ok("invoke", "keeper", "three", "--session", "mine")


def test_a_fault_applies_nothing_and_says_where(platform, folder):
    (folder / "good.yaml").write_text(definition("good-one"))
    (folder / "bad.yaml").write_text(definition("bad-one").replace("metadata:", "metdata:"))
    done = platform.run("apply", str(folder))
    assert done.returncode == 65
    assert "bad.yaml:2:1: metdata: unknown field 'metdata'" in done.stderr and "did you mean 'metadata'" in done.stderr
    assert platform.data("get", "agents", "-q", "good-one") == []
    assert platform.run("apply", "--keep-going", str(folder)).returncode == 65
    assert [row["name"] for row in platform.data("get", "agents", "-q", "good-one")] == ["good-one"]


def test_a_name_that_stands_twice_is_refused(platform, folder):
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text(definition("twin"))
    done = platform.run("apply", str(folder))
    assert done.returncode == 65 and "twin" in done.stderr
    assert platform.data("get", "agents", "-q", "twin") == []


def test_archives_and_standard_input_are_taken(platform, folder):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in (("packed.yaml", definition("packed")), ("src/mine.py", ECHO)):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    (folder / "agents.tar.gz").write_bytes(packed.getvalue())
    assert platform.data("apply", str(folder / "agents.tar.gz"))["created"] == 1
    assert "packed got x" in platform.ok("invoke", "packed", "x")
    plain = definition("piped", specification="{framework: function}")
    assert "1 created" in platform.ok("apply", "-", text=plain)


def test_two_applies_at_once_leave_one_whole_result(platform, folder):
    for side in ("a", "b"):
        (folder / side).mkdir()
        for number in range(30):
            text = definition(f"both-{number}", specification="{framework: function}", description=f"From {side}")
            (folder / side / f"{number}.yaml").write_text(text)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda side: platform.ok("apply", str(folder / side)), ("a", "b")))
    rows = platform.data("get", "agents", "-q", "both-")
    assert len(rows) == 30 and len({row["description"] for row in rows}) == 1


def test_an_image_is_taken_and_a_call_says_what_to_do(platform, folder):
    file = folder / "image.yaml"
    file.write_text(definition("imaged", specification="{framework: LangGraph, runtime: 'example/agent:1.2'}"))
    assert "warning" in platform.ok("validate", str(file))
    platform.ok("apply", str(file))
    done = platform.run("invoke", "imaged", "hello")
    assert done.returncode == 69 and "Kubernetes" in done.stderr


def test_an_openai_client_works_unchanged(platform, folder):
    (folder / "spoken.yaml").write_text(definition("spoken", specification="{framework: function}"))
    platform.ok("apply", str(folder / "spoken.yaml"))
    with OpenAI(base_url=f"{platform.url}/v1", api_key=platform.key) as client:
        asked = [{"role": "user", "content": "hello there"}]
        answer = client.chat.completions.create(model="agent/spoken", messages=asked)
        assert answer.choices[0].message.content == "You said: hello there"
        pieces = client.chat.completions.create(model="agent/spoken", messages=asked, stream=True)
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        assert text == "You said: hello there"
        assert "agent/spoken" in {model.id for model in client.models.list()}


@pytest.mark.parametrize("framework", ["AutoGen", "CrewAI", "LangGraph"])
def test_the_missions_fields_alone_run_on_each_framework(platform, folder, framework):
    file = folder / "alone.yaml"
    name = f"alone-{framework.lower()}"
    file.write_text(definition(name, specification=f"{{framework: {framework}}}"))
    platform.ok("apply", str(file))
    done = platform.run("invoke", name, "hello there", "--no-stream")
    if "not installed" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0 and "You said:" in done.stdout


def test_status_and_doctor_say_that_all_is_well(platform):
    assert platform.data("status")["healthy"]
    rows = {row["check"]: row["state"] for row in platform.data("doctor")}
    assert rows["platform"] == "ok" and rows["key"] == "ok"


def test_what_is_kept_is_for_its_user_alone(platform):
    secret = [file for file in platform.home.rglob("*") if file.is_file() and file.name != "script.yaml"]
    assert {"chimera.db", "gateway.jsonl", "chimera.key"} <= {file.name for file in secret}
    assert not [str(file) for file in secret if file.stat().st_mode & 0o077]
