"""What every command shares: help with an example, output formats, exit codes, errors with a next step."""

import json
import subprocess
import sys

import click
import pytest
import yaml
from click.testing import CliRunner

from chimera.entrypoints.cli import output
from chimera.entrypoints.cli import up as up_command
from chimera.entrypoints.cli.failing import exit_code, report
from chimera.entrypoints.cli.main import COMMANDS, cli
from chimera.entrypoints.cli.up import announce, announce_cluster, start
from chimera.kernel.settings import SettingsError
from chimera_host.contract.problem import ProblemError

HEAVY = ("sqlalchemy", "alembic", "aiohttp", "rich", "yaml", "msgspec", "uvloop")


def commands(group=cli, path=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_help_says_what_it_does_and_shows_an_example(name, command):
    shown = CliRunner().invoke(cli, [*name.split(), "--help"]).output
    assert f"chimera {name.split()[0]}" in shown.partition("Example:")[2]
    assert command.help and all(one.help for one in command.params if isinstance(one, click.Option))


def test_commands_that_print_data_offer_three_formats():
    formats = {
        name: one.type.choices
        for name, command in commands()
        for one in command.params
        if one.name == "output" and isinstance(one.type, click.Choice)
    }
    without = {"init", "delete", "chat", "runtime install", "completion", "audit export"} | {
        *("sessions export", "sessions delete", "state spaces delete", "repo hook")
    }
    assert set(formats) == {name for name, _ in commands()} - without
    assert tuple(formats.pop("scan")) == ("table", "json", "yaml", "sarif"), "which code hosts read"
    assert {tuple(choices) for choices in formats.values()} == {("table", "json", "yaml")}


@pytest.mark.parametrize(
    "asking",
    [
        "rollback --selector domain=tax --output json",
        "delete anna bert",
        "sessions delete anna one two",
        "sessions erase ann --output json",
        "state spaces delete notes",
    ],
)
def test_a_question_is_no_part_of_what_is_printed(asking):
    """It goes to where errors go: what is printed may be read by a program."""
    done = CliRunner().invoke(cli, asking.split(), input="n\n", standalone_mode=False)
    assert isinstance(done.exception, click.Abort)
    assert done.stdout == "" and "[y/N]:" in done.stderr


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from chimera.entrypoints.cli.main import cli\n"
        "try: cli.main(['--help'], standalone_mode=False)\n"
        "finally: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded.isdisjoint(HEAVY) and len(COMMANDS) > 10


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell):
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0 and "_CHIMERA_COMPLETE" in done.output


def test_a_misspelt_command_is_suggested():
    done = CliRunner().invoke(cli, ["aply"])
    assert done.exit_code == 2 and "Did you mean 'apply'?" in done.output


@pytest.mark.parametrize(
    ("status", "code"), [(400, 65), (401, 77), (404, 65), (422, 65), (429, 75), (500, 70), (501, 69), (503, 69)]
)
def test_statuses_map_to_exit_codes(status, code):
    assert exit_code(status) == code


def test_a_problem_is_told_with_its_places_and_the_next_step(capsys):
    error = ProblemError(
        "two faults",
        next_step="mend them",
        errors=[{"file": "a.yaml", "line": 3, "column": 5, "path": "metadata.name", "message": "no", "allowed": "yes"}],
    )
    error.status = 422
    assert report(error) == 65
    told = capsys.readouterr().err
    assert told == "Error: two faults\n  a.yaml:3:5: metadata.name: no; allowed: yes\nNext: mend them\n"


def test_wrong_settings_end_with_their_own_code(capsys):
    assert report(SettingsError(["node.tick: below 0.1", "unknown group"])) == 78
    assert capsys.readouterr().err == "Error: node.tick: below 0.1\nError: unknown group\n"


def test_an_error_that_nobody_foresaw_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        report(ZeroDivisionError())


def test_nothing_running_is_said_with_the_next_step(tmp_path):
    done = CliRunner().invoke(cli, ["--home", str(tmp_path), "status"])
    assert isinstance(done.exception, ProblemError) and "chimera up" in (done.exception.next_step or "")


def test_what_comes_one_by_one_is_a_line_or_a_document_each(capsys):
    several = [{"state": "running"}, {"state": "done", "why": "a\nb"}]
    for one in several:
        output.show_next(one, "json")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == several
    for one in several:
        output.show_next(one, "yaml")
    assert list(yaml.safe_load_all(capsys.readouterr().out)) == several


def test_formats_hold_the_same_data(capsys):
    data = [{"name": "a", "tags": ["x", "y"], "none": None}]
    output.show(data, "json")
    assert json.loads(capsys.readouterr().out) == data
    output.show(data, "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == data
    output.show(data, "table", columns=(("name", "NAME"), ("tags", "TAGS"), ("none", "NONE")), rows=data)
    assert capsys.readouterr().out == "NAME\tTAGS\tNONE\na\tx, y\t-\n"


def test_init_writes_a_definition_that_is_valid(tmp_path):
    runner = CliRunner()
    assert runner.invoke(cli, ["init", "first", "--folder", str(tmp_path)]).exit_code == 0
    assert "1 valid" in runner.invoke(cli, ["validate", str(tmp_path / "first.yaml")]).output
    assert (tmp_path / "adac-v2.0.schema.json").exists()
    assert "is there already" in runner.invoke(cli, ["init", "first", "--folder", str(tmp_path)]).output
    assert runner.invoke(cli, ["init", "Not A Name", "--folder", str(tmp_path)]).exit_code == 2


def test_options_of_up_reach_the_supervisor_whatever_their_value(tmp_path, monkeypatch):
    seen = []

    class Process:
        def __init__(self, command, **_):
            seen.extend(command)

    monkeypatch.setattr(subprocess, "Popen", Process)
    start(tmp_path, {"port": 0, "no_fork": True, "no_limits": False, "script": None, "allow_host": ("a", "b")})
    assert seen[seen.index("--port") + 1] == "0" and "--no-fork" in seen
    assert "--no-limits" not in seen and "--script" not in seen
    assert [seen[index + 1] for index, part in enumerate(seen) if part == "--allow-host"] == ["a", "b"]


def test_a_file_without_a_definition_is_no_success(tmp_path):
    for text in ("", "# a comment\n", "---\n"):
        (tmp_path / "a.yaml").write_text(text)
        done = CliRunner().invoke(cli, ["validate", str(tmp_path / "a.yaml")])
        assert "a.yaml:1: there is no definition in it" in done.output and "1 errors" in done.output


def test_a_platform_in_a_cluster_is_announced_with_what_to_do_next(capsys):
    where = {"public": "http://127.0.0.1:8080", "home": "/h", "cluster": "https://c", "namespace": "n"}
    announce_cluster({**where, "installed": True}, lasting=False)
    said = capsys.readouterr().out
    assert "was installed in namespace n of https://c" in said and "until Ctrl-C" in said
    assert "chimera uninstall" in said and "cat /h/run/cluster.key" in said and "chimera apply" in said
    announce_cluster({**where, "installed": False}, lasting=True)
    said = capsys.readouterr().out
    assert "is there" in said and "Ctrl-C" not in said


def test_another_terminal_is_told_the_home_where_it_would_not_find_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / ".chimera"
    home.mkdir()
    where = {"public": "u", "home": str(home), "models": {}, "audit_keys": "k"}
    announce(where)
    assert "CHIMERA_HOME" not in capsys.readouterr().out
    elsewhere = str(home / "a demo")
    monkeypatch.setenv("CHIMERA_HOME", elsewhere)  # of this terminal alone
    announce({**where, "home": elsewhere})
    assert f"export CHIMERA_HOME='{elsewhere}'\n" in capsys.readouterr().out


def test_options_of_a_cluster_are_not_the_machines(tmp_path, monkeypatch):
    seen = []

    def started(home, options, program):
        seen.append((program, options))
        return type("Ended", (), {"wait": lambda self: 0})(), None

    monkeypatch.setattr(up_command, "start", started)
    monkeypatch.setenv("KUBECONFIG", "/somewhere")
    CliRunner().invoke(
        cli, ["--home", str(tmp_path), "up", "--substrate", "knative", "--namespace", "n", "--port", "0"]
    )
    CliRunner().invoke(cli, ["--home", str(tmp_path), "up", "--no-fork"])
    (cluster, of_cluster), (machine, of_machine) = seen
    assert (cluster, machine) == ("reach", "supervisor")
    assert (of_cluster["namespace"], of_cluster["kubeconfig"], of_cluster["port"]) == ("n", "/somewhere", 0)
    assert "no_fork" not in of_cluster and "namespace" not in of_machine and of_machine["no_fork"] is True


@pytest.fixture
def ran(monkeypatch):
    """What the commands of a cluster start, in place of starting it."""
    seen = []

    def started(home, options, program):
        seen.append(options["kubeconfig"])
        return type("Ended", (), {"wait": lambda self: 0})(), None

    def run(command, **_):
        seen.append(next((one.partition("=")[2] for one in command if one.startswith("--kubeconfig=")), None))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(up_command, "start", started)
    monkeypatch.setattr("chimera.entrypoints.cli.installing.subprocess.run", run)
    return seen


@pytest.mark.parametrize("command", ["up", "install", "uninstall"])
def test_of_several_kubeconfigs_in_the_environment_one_must_be_named(tmp_path, monkeypatch, ran, command):
    asked = ["--home", str(tmp_path), command, "--substrate", "knative"]
    (tmp_path / "config").touch()
    monkeypatch.setenv("KUBECONFIG", "/one:/other")
    refused = CliRunner().invoke(cli, asked)
    assert refused.exit_code and "--kubeconfig" in refused.output and "2 files" in refused.output
    assert "does not exist" not in refused.output and not ran
    CliRunner().invoke(cli, [*asked, "--kubeconfig", str(tmp_path / "config")])
    for value in ("", f":{tmp_path / 'config'}:"):  # as kubectl, which passes over what is empty
        monkeypatch.setenv("KUBECONFIG", value)
        CliRunner().invoke(cli, asked)
    assert ran == [str(tmp_path / "config"), None, str(tmp_path / "config")]


def test_what_is_only_printed_needs_no_cluster(monkeypatch, tmp_path, ran):
    monkeypatch.setenv("KUBECONFIG", "/one:/other")
    CliRunner().invoke(cli, ["--home", str(tmp_path), "install", "--substrate", "knative", "--dry-run"])
    assert ran == [None]
