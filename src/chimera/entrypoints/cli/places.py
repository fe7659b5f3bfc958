"""The home or cluster that the command line or the environment names, for commands that need nothing to run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from chimera.kernel.places import default_home
from chimera.kernel.settings import FILE_NAME, read_groups


def home_folder(options: Mapping[str, Any]) -> Path:
    """Where the home is, whether it is there or not."""
    return Path(options["home"]) if options.get("home") else default_home(os.environ)


def settings_of(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The groups of settings of the home and of the environment; raises `SettingsError`."""
    return read_groups(home_folder(options) / FILE_NAME, os.environ)


def kubeconfig_of(options: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    """The file that tells of the cluster; None where none is named."""
    if options.get("kubeconfig"):
        return str(options["kubeconfig"])
    named = [one for one in environ.get("KUBECONFIG", "").split(os.pathsep) if one]
    if len(named) > 1:  # which kubectl would merge
        raise click.UsageError(f"$KUBECONFIG names {len(named)} files: name the cluster's with --kubeconfig")
    return named[0] if named else None
