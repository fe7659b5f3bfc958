"""The workflow of a catalogue's repository at a host: what the host runs for each proposed change.

It runs the commands that people run, and needs no secret: what is merged is carried to production by `chimera sync`,
which comes and looks, so that no host of Git holds a key of the platform's.

A scan without advisories judges nothing, so the workflow has an input for them, a variable of the repository at its
host. What OSV itself publishes stands in for it.
"""

from typing import Literal

from chimera.delivery.git.layout import WAIVERS_FILE, LaidOut, sealed

Host = Literal["github", "gitea", "gitlab"]
HOSTS: tuple[Host, ...] = ("github", "gitea", "gitlab")
BY = "chimera repo workflow"

_PLACES: dict[Host, tuple[str, str]] = {
    "github": (".github/workflows/chimera.yaml", ".github/CODEOWNERS"),
    "gitea": (".gitea/workflows/chimera.yaml", ".gitea/CODEOWNERS"),
    "gitlab": (".gitlab-ci.yml", ".gitlab/CODEOWNERS"),
}

ADVISORIES = "CHIMERA_SCANNING__ADVISORIES"
"""The input: folders in the repository, files or addresses of advisories in OSV's format, separated by commas."""
PUBLISHED = "https://storage.googleapis.com/osv-vulnerabilities/PyPI/all.zip"
"""OSV's own export for Python, which every agent's runtime needs unless it runs on Node."""

STEPS = (
    ("Validate the definitions", "chimera validate agents templates"),
    ("Scan for security problems", f"chimera scan agents templates --waivers {WAIVERS_FILE}"),
    ("Owners are written down", "chimera repo codeowners --check"),
)
"""What a change must pass, as a title and a command."""


def workflow(host: Host, *, version: str, branch: str) -> LaidOut:
    """The workflow file of `host`, which installs this `version` of Chimera."""
    body = _GITLAB if host == "gitlab" else _ACTIONS
    steps = "".join(_step(host, title, command) for title, command in STEPS)
    text = body.format(version=version, branch=branch, steps=steps, advisories=ADVISORIES, published=PUBLISHED)
    return LaidOut(path=_PLACES[host][0], text=sealed(BY, text), generated=True)


def codeowners_place(host: Host) -> str:
    """Where `host` looks for the CODEOWNERS file."""
    return _PLACES[host][1]


def _step(host: Host, title: str, command: str) -> str:
    if host == "gitlab":
        return f"    - {command}\n"
    return f"      - name: {title}\n        run: {command}\n"


_ACTIONS = """\
name: chimera
on:
  pull_request:
  push:
    branches: ["{branch}"]
  workflow_dispatch:
    inputs:
      advisories:
        description: Advisories in OSV's format to scan with, folders, files or addresses, separated by commas
permissions:
  contents: read
concurrency:
  group: chimera-${{{{ github.ref }}}}
  cancel-in-progress: true
jobs:
  check:
    runs-on: ubuntu-latest
    timeout-minutes: 20
    env:
      # A variable of this name, of the repository or its owner, names others.
      {advisories}: ${{{{ inputs.advisories || vars.{advisories} || '{published}' }}}}
    steps:
      - uses: actions/checkout@v4
        with:
          persist-credentials: false
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
      - name: Install Chimera
        run: pip install 'chimera-ecosystem=={version}'
{steps}"""

_GITLAB = """\
check:
  image: python:3.11-slim
  timeout: 20 minutes
  variables:
    # A variable of this name, of the project or its group, names others.
    {advisories}: "{published}"
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
    - if: $CI_COMMIT_BRANCH == "{branch}"
  script:
    - pip install 'chimera-ecosystem=={version}'
{steps}"""
