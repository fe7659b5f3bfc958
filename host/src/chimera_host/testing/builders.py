"""Agents' documents and calls in one line, with everything a test doesn't care about filled in."""

import hashlib
import io
import itertools
import tarfile
from collections.abc import Mapping
from typing import Any

import msgspec

from chimera_host.contract.agent import AgentDocument, AgentResources, FrameworkName
from chimera_host.contract.behaviour import Behaviour, FunctionBehaviour
from chimera_host.contract.call import InvokeRequest, Message, SessionState

_CANONICAL = msgspec.json.Encoder(order="sorted")
_NUMBERS = itertools.count(1)
RESOURCES = AgentResources(cpu_millicores=250, memory_bytes=512 * 1024**2, storage_bytes=1024**3)


def document(name: str = "agent", framework: FrameworkName = "function", **fields: Any) -> AgentDocument:
    """An agent's document; without `behaviour` a function agent that asks the model once."""
    fields.setdefault("behaviour", Behaviour(function=FunctionBehaviour(system_message=f"You are {name}.")))
    fields.setdefault("tenant", "default")
    fields.setdefault("version", "1.0.0")
    fields.setdefault("description", f"The agent {name}.")
    fields.setdefault("resources", RESOURCES)
    return AgentDocument(name=name, framework=framework, **fields)


def encode_document(value: AgentDocument) -> bytes:
    """The document as the internal API serves it."""
    return _CANONICAL.encode(value)


def digest(data: bytes) -> str:
    """The digest of some bytes as it is written everywhere."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def bundle(files: Mapping[str, str]) -> bytes:
    """A source bundle (tar.gz) of these files; the same bytes for the same files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT, compresslevel=1) as archive:
        for path in sorted(files):
            data = files[path].encode()
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    raw = bytearray(out.getvalue())
    raw[4:8] = b"\0\0\0\0"  # gzip writes the time there
    return bytes(raw)


def invoke_request(agent: AgentDocument, revision: str, prompt: str = "Hello", **fields: Any) -> InvokeRequest:
    """A call of `agent` with one message from the user."""
    fields.setdefault("call", f"call-{next(_NUMBERS)}")
    fields.setdefault("deadline", 30.0)
    fields.setdefault("messages", (Message(role="user", content=prompt),))
    return InvokeRequest(tenant=agent.tenant, agent=agent.name, revision=revision, **fields)


def session(*turns: tuple[str, str], **values: Any) -> SessionState:
    """A session of (role, text) turns."""
    messages = tuple(msgspec.convert({"role": role, "content": text}, Message) for role, text in turns)
    return SessionState(messages=messages, values=values)
