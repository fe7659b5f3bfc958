"""Credentials for tools: given to a host by name, during a call, and only those that the agent's document refers to.

`secret:NAME` is the file NAME in the folder of secrets, which nobody but its owner may read, else in a mounted folder
(a Kubernetes Secret), else what `bootstrap` took from the environment variable CHIMERA_SECRET_NAME. Values are read at
each request, so a changed secret needs no restart, and are never logged.
"""

import asyncio
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from chimera.gateway.errors import CredentialMissing, CredentialRefused
from chimera.kernel.ids import is_environment
from chimera_host.contract.agent import AgentDocument
from chimera_host.contract.tools import AgentTool, MessageTool

PREFIX = "secret:"
STAGING = "staging_"
MAX_SECRET = 64 * 1024

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")


class Credentials:
    """Resolves references."""

    def __init__(self, folder: Path, environment: Mapping[str, str], mounts: Sequence[Path] = ()) -> None:
        """Look in `folder` first, then in `mounts`, then in `environment` (by name, without a prefix).

        The modes of mounted files are not looked at: the kubelet sets them for the pod, and its wall is the pod's.
        """
        self._folder = folder
        self._mounts = tuple(mounts)
        self._environment = dict(environment)

    async def resolve(self, document: AgentDocument, references: Sequence[str]) -> dict[str, str]:
        """The values of `references`, each of which `document` must hold.

        In an environment for tests `secret:NAME` is `secret:staging_NAME`, and nothing else: never production's.
        """
        allowed = held_by(document)
        for reference in references:
            if reference not in allowed:
                raise CredentialRefused(
                    f"agent {document.name} doesn't refer to {reference[:200]!r}",
                    next_step="name it under `credentials` of the tool that needs it",
                    agent=document.name,
                )
        stored = stored_as if is_environment(document.tenant) else str
        return {reference: await asyncio.to_thread(self._read, stored(reference)) for reference in references}

    async def value(self, reference: str) -> str:
        """The value of a reference that the platform itself uses. Raises `CredentialMissing`, `CredentialRefused`."""
        return await asyncio.to_thread(self._read, reference)

    def _read(self, reference: str) -> str:
        name = reference.removeprefix(PREFIX)
        if _NAME.fullmatch(name) is not None:
            for folder in (self._folder, *self._mounts):
                value = _in_file(folder / name, reference, private=folder is self._folder)
                if value is not None:
                    return value
        if name in self._environment:
            return self._environment[name]
        raise CredentialMissing(
            f"no {reference} is stored",
            next_step=f"put it into {self._folder / name} (mode 0600), mount it, or set CHIMERA_SECRET_{name}",
        )


def _in_file(path: Path, reference: str, *, private: bool) -> str | None:
    """The secret in a file, which nobody else may read where it is `private`; None where there is no file."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            if private and mode & 0o077:
                raise CredentialRefused(
                    f"the file of {reference} may be read by others (mode {mode:04o})",
                    next_step=f"chmod 600 {path}",
                )
            return file.read(MAX_SECRET).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise CredentialRefused(f"{reference} is not text", next_step="store it as UTF-8") from None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CredentialMissing(f"{reference} can't be read: {error}", next_step=f"see {path}") from error


def stored_as(reference: str) -> str:
    """The reference under which an environment's agent finds what production's finds under `reference`."""
    return f"{PREFIX}{STAGING}{reference.removeprefix(PREFIX)}"


def held_by(document: AgentDocument) -> frozenset[str]:
    """All references in an agent's document."""
    function = document.behaviour.function
    endpoint = function.endpoint if function is not None else None
    own = (endpoint.credential,) if endpoint is not None and endpoint.credential is not None else ()
    return frozenset(
        (
            *own,
            *(
                reference
                for tool in document.tools
                if not isinstance(tool, AgentTool | MessageTool)
                for reference in tool.credentials.values()
            ),
        )
    )


def may_call(document: AgentDocument, agent: str) -> bool:
    """Whether the document lists `agent` as a tool."""
    return any(isinstance(tool, AgentTool) and tool.agent == agent for tool in document.tools)


def may_write(document: AgentDocument, agent: str, *, reply: bool) -> bool:
    """Whether the document lists `agent` as one that messages are sent to, and that replies where `reply` is wanted."""
    return any(
        isinstance(tool, MessageTool) and tool.agent == agent and (tool.reply or not reply) for tool in document.tools
    )
