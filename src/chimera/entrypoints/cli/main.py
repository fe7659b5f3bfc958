"""`chimera`: the commands and what they share.

Commands live in modules of their own and are imported when they run, so that help and completion answer at once. Every
error is one sentence, a next step, and an exit code from sysexits.h: 64 usage, 65 invalid data, 69 not available, 70
internal, 75 try again, 77 not allowed, 78 settings.
"""

import importlib
import sys
from typing import Any

import click

COMMANDS = {
    "init": ("definitions", "init", "Write a first definition."),
    "validate": ("definitions", "validate", "Check definitions, with every fault and its place."),
    "sync": ("syncing", "sync", "Follow branches of Git repositories."),
    "repo": ("repo", "repo", "Lay out a catalogue's Git repository, and protect its branch."),
    "up": ("up", "up", "Start Chimera on this machine, or reach it in a cluster."),
    "apply": ("applying", "apply", "Make definitions live, all or nothing."),
    "quality": ("quality", "quality", "Score definitions by named criteria, beside all live agents."),
    "change": ("changes", "change", "Open, approve and follow change requests; freezes and the delivery policy."),
    "sbom": ("evidence", "sbom", "Show what an agent is made of, as CycloneDX."),
    "provenance": ("evidence", "provenance", "Show and check where a revision comes from."),
    "test": ("trying", "test", "Run agents' own tests."),
    "diff": ("definitions", "diff", "Compare definitions with what is live."),
    "get": ("looking", "get", "List agents, cells, hosts, incidents, models or revisions."),
    "describe": ("looking", "describe", "Show an agent in full."),
    "export": ("exporting", "export", "Write an agent as a project of Knative Functions."),
    "delete": ("looking", "delete", "Delete agents."),
    "rollout": ("rollouts", "rollout", "Roll definitions out wave by wave; list, watch, pause and abort rollouts."),
    "rollback": ("rolling", "rollback", "Make an earlier revision of an agent live again."),
    "invoke": ("calling", "invoke", "Call an agent and stream its answer."),
    "chat": ("calling", "chat", "Talk with an agent."),
    "tasks": ("tasks", "tasks", "Submit, list, show, follow and cancel long work."),
    "events": ("events", "events", "Follow events; subscribe receivers; see, replay and drop dead letters."),
    "sessions": ("sessions", "sessions", "List, show, export and erase sessions and what is kept of people."),
    "state": ("state", "state", "Declare, read and write state that agents share."),
    "logs": ("watching", "logs", "Show what the processes and agents log."),
    "top": ("watching", "top", "Show processes, cells and hosts, live."),
    "status": ("watching", "status", "Show whether all is well."),
    "doctor": ("doctor", "doctor", "Check this machine and say what to mend."),
    "keys": ("identity", "keys", "Make, list, rotate and revoke API keys."),
    "roles": ("identity", "roles", "Give users roles."),
    "policies": ("policies", "policies", "Apply, list, test and explain policies."),
    "tenants": ("identity", "tenants", "Make, list, suspend and resume tenants."),
    "upgrade": ("upgrade", "upgrade", "Bring a home up to this release, or say what that takes."),
    "backup": ("backup", "backup", "Make, verify and list backups."),
    "restore": ("backup", "restore", "Bring a backup back."),
    "audit": ("audit", "audit", "List, export and verify the audit log."),
    "scan": ("scanning", "scan", "Look for security problems in definitions and their code."),
    "upkeep": ("upkeep", "upkeep", "Show and run what removes old rows."),
    "size": ("sizing", "size", "Say what cluster agents and calls need, and its price."),
    "install": ("installing", "install", "Put the platform into a cluster."),
    "uninstall": ("installing", "uninstall", "Take the platform out of a cluster."),
    "host": ("checking", "host", "See whether a host, or an image of one, keeps the contract."),
    "runtime": ("runtime", "runtime", "Install frameworks' environments."),
    "completion": ("completion", "completion", "Print the shell's completion script."),
}


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, _: click.Context) -> list[str]:
        """All commands, in the order of a first use."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """One command, imported."""
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        found = getattr(importlib.import_module(f"chimera.entrypoints.cli.{module}"), attribute)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Names and one line each, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name for a misspelt one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", context)
        return super().resolve_command(context, args)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "CHIMERA"},
    epilog="Example: chimera apply agents/ && chimera invoke hello 'What can you do?'",
)
@click.option("--home", type=click.Path(file_okay=False), help="Folder of keys, data and logs.")
@click.option("--url", help="Address of the API; default: the one that runs in the home.")
@click.option("--key", help="Key of the API; default: from the home's key file.")
@click.option("--tenant", default="default", show_default=True, help="Tenant to work in.")
@click.version_option(package_name="chimera-ecosystem")
@click.pass_context
def cli(context: click.Context, /, **options: Any) -> None:
    """Run an ecosystem of thousands of agents as one system."""
    context.obj = options


def main() -> None:
    """Run the command line; errors become one sentence, a next step and an exit code."""
    from chimera.entrypoints.cli.failing import report

    try:
        code = cli.main(standalone_mode=False)
    except BaseException as error:
        sys.exit(report(error))
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
