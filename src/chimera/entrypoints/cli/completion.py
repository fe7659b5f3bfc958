"""`chimera completion`: the shell's completion script."""

import click
from click.shell_completion import get_completion_class


@click.command(epilog='Example: eval "$(chimera completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL."""
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(context.find_root().command, {}, "chimera", "_CHIMERA_COMPLETE").source())
