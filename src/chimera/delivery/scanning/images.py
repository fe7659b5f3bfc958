"""A container image: what is installed in it, as whom it runs, and what its layers hold, deleted files among them.

Packages are judged as they are at the end. One that only an earlier layer has can't be run, so what is wrong with it is
told as `low`; a secret of an earlier layer can still be read by whoever pulls the image, so deleting it mends nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import msgspec

from chimera.delivery.scanning import models, pickles, secrets
from chimera.delivery.scanning.dependencies import Against, judge
from chimera.delivery.scanning.layers import (
    LARGEST_TEXT,
    LayerFile,
    LayerUnreadable,
    is_database,
    is_model,
    is_packaged,
    read_layer,
)
from chimera.delivery.scanning.model import Finding, Place, Result, Severity, Unjudged, found
from chimera.delivery.scanning.os_packages import ecosystem_of, of_apk, of_dpkg
from chimera.delivery.scanning.packages import Listed, Package, of_metadata, of_node_package
from chimera.delivery.scanning.unpacking import Inner

ROOT = frozenset(["", "0", "root", "0:0", "root:root", "0:root", "root:0"])
KNOWN_SETUID = frozenset(
    [
        *("su", "sudo", "passwd", "chsh", "chfn", "chage", "expiry", "gpasswd", "newgrp", "mount", "umount", "ping"),
        *(
            "ping6",
            "unix_chkpwd",
            "pam_timestamp_check",
            "ssh-agent",
            "ssh-keysign",
            "wall",
            "write",
            "bbsuid",
            "crontab",
        ),
        *("dbus-daemon-launch-helper", "fusermount", "fusermount3", "polkit-agent-helper-1", "pkexec", "bsd-write"),
    ]
)
_RPM = ("var/lib/rpm/", "usr/lib/sysimage/rpm/")
_CREDENTIALS = (
    *(".aws/credentials", ".docker/config.json", ".git-credentials", ".netrc", ".pypirc", ".kube/config", ".pgpass"),
    *(".ssh/id_rsa", ".ssh/id_ed25519", ".ssh/id_ecdsa", ".config/gcloud/application_default_credentials.json"),
)
MOST_SHOWN = 200
LARGEST_LISTS = 512 * 1024**2
"""Bytes of all that says what is installed, over all layers: it is kept until the last of them is read."""
MOST_FINDINGS = 20_000
MOST_STEPS = 20_000_000
"""Looks at paths that deleted files may cost. A layer that deletes a million times would take hours."""


@dataclass(frozen=True, kw_only=True)
class ImageParts:
    """An image: its name, its configuration, and its layers in order, each to be read once."""

    name: str
    config: Mapping[str, Any]
    layers: Iterable[tuple[str, IO[bytes]]]


@dataclass(kw_only=True)
class _State:
    """What the layers so far have come to."""

    databases: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    replaced: list[tuple[int, str, bytes]] = field(default_factory=list)
    added: dict[int, dict[str, list[Result]]] = field(default_factory=dict)
    setuid: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    rpm: bool = False
    listed: int = 0
    findings: int = 0
    steps: int = 0


def scan_image(image: ImageParts, against: Against, allowed: Collection[str] = ()) -> Iterator[Result]:
    """Everything about one image."""
    yield from _configuration(image)
    state = _State()
    for index, (digest, blob) in enumerate(image.layers):
        name = f"{image.name}!layer {index + 1} ({digest[:19]})"
        try:
            for file in read_layer(blob):
                yield from _take(state, index, name, file, allowed)
        except LayerUnreadable as error:
            yield _unjudged(name, str(error), "build and push the image anew, its layers as gzip")
    yield from _lying(state)
    for path, mode in sorted(state.setuid.items())[:MOST_SHOWN]:
        yield _setuid(image.name, path, mode)
    yield from _packages(image.name, state, against)


def _configuration(image: ImageParts) -> Iterator[Result]:
    config = image.config.get("config")
    config = config if isinstance(config, Mapping) else {}
    user = str(config.get("User") or "")
    if user in ROOT or user.partition(":")[0] in ("0", "root"):
        yield found(
            "images",
            "root",
            "high",
            "it runs as root" if user else "it names no user, so it runs as root",
            next_step="name another in the image (USER 65532:65532)",
            place=Place(file=image.name, field="config.User"),
        )
    told: list[tuple[str, Any]] = [("config.Env", config.get("Env")), ("config.Labels", config.get("Labels"))]
    told += [("config.Cmd", config.get("Cmd")), ("config.Entrypoint", config.get("Entrypoint"))]
    history = image.config.get("history")
    steps = [one.get("created_by") for one in history if isinstance(one, Mapping)] if isinstance(history, list) else []
    told.append(("history", steps))
    for where, value in told:
        for one in secrets.scan_value({where: value}, file=image.name):
            yield _as_image(one)


def _as_image(one: Finding) -> Finding:
    return msgspec.structs.replace(one, scanner="images", rule="images/" + one.rule.partition("/")[2])


def _take(state: _State, index: int, layer: str, file: LayerFile, allowed: Collection[str]) -> Iterator[Result]:
    path = file.path
    folder, _, base = path.rpartition("/")
    if base.startswith(".wh."):
        _remove(state, index, folder, base)
        return
    if file.kind == "device":
        yield _finding("device", "medium", layer, path, "a device lies in it", "make devices when it runs, if at all")
        return
    if file.kind != "file":
        state.setuid.pop(path, None)
        return
    state.removed.pop(path, None)
    if path.startswith(_RPM):
        state.rpm = True
    if file.mode & 0o6000 and file.mode & 0o111:
        state.setuid[path] = file.mode
    else:
        state.setuid.pop(path, None)
    if file.cut:
        if is_database(path) or is_model(path):
            yield _unjudged(
                f"{layer}!{path}", "it is too large to be looked into", "make it smaller, or keep it outside"
            )
        return
    if file.data is None:
        return
    if is_database(path):
        _keep_list(state, index, path, file.data)
        return
    results = list(_contents(layer, path, file.data, allowed))
    state.findings += len(results)
    if state.findings > MOST_FINDINGS:
        raise LayerUnreadable(f"more than {MOST_FINDINGS:,} things were found up to here")
    if results:
        state.added.setdefault(index, {})[path] = results


def _keep_list(state: _State, index: int, path: str, data: bytes) -> None:
    """Keep what says what is installed: it counts as it is in the last layer."""
    state.listed += len(data)
    if state.listed > LARGEST_LISTS:
        raise LayerUnreadable(f"what says what is installed has more than {LARGEST_LISTS:,} bytes")
    if path in state.databases:
        state.replaced.append((state.databases[path][0], path, state.databases[path][1]))
    state.databases[path] = (index, data)


def _contents(layer: str, path: str, data: bytes, allowed: Collection[str]) -> Iterator[Result]:
    where = f"{layer}!{path}"
    if is_model(path):
        yield from (_moved(one) for one in models.scan_files([(where, data)], allowed))
    elif pickles.looks_like_pickle(data):
        yield from (_moved(one) for one in models.scan_file(Inner(where, data), allowed))
    if is_packaged(path) or len(data) > LARGEST_TEXT:
        return
    text = secrets.text_of(data)
    found_here = secrets.scan_text(text, file=where) if text is not None else []
    yield from (_as_image(one) for one in found_here)
    if not found_here and path.endswith(_CREDENTIALS):
        yield _finding("credentials", "high", layer, path, "credentials of a person or tool", "keep them out of images")


def _moved(one: Result) -> Result:
    """A finding of another scanner as one about an image."""
    if isinstance(one, Finding):
        return _as_image(one)
    return msgspec.structs.replace(one, scanner="images")


def _remove(state: _State, index: int, folder: str, base: str) -> None:
    """A whiteout: a path, or all that lower layers have in a folder."""
    gone = folder if base == ".wh..wh..opq" else f"{folder}/{base.removeprefix('.wh.')}".lstrip("/")
    inside = gone + "/" if gone else ""
    state.steps += len(state.databases) + len(state.setuid) + sum(map(len, state.added.values()))
    if state.steps > MOST_STEPS:
        raise LayerUnreadable("it deletes more than can be followed")
    for path in [one for one in state.databases if one == gone or one.startswith(inside)]:
        if state.databases[path][0] != index:
            state.replaced.append((state.databases[path][0], path, state.databases.pop(path)[1]))
    for path in [one for one in state.setuid if one == gone or one.startswith(inside)]:
        del state.setuid[path]
    for layer, files in state.added.items():
        for path in files:
            if layer < index and (path == gone or path.startswith(inside)):
                state.removed[path] = index


def _lying(state: _State) -> Iterator[Result]:
    """What lies in layers, with a word on what was deleted since."""
    for _, files in sorted(state.added.items()):
        for path, results in files.items():
            for one in results:
                if isinstance(one, Finding) and path in state.removed:
                    later = f"; layer {state.removed[path] + 1} deletes it, and it is still in the image"
                    one = msgspec.structs.replace(one, message=one.message + later)
                yield one


def _setuid(image: str, path: str, mode: int) -> Result:
    whose = "owner" if mode & 0o4000 else "group"
    known = path.rpartition("/")[2] in KNOWN_SETUID and path.startswith(("usr/", "bin/", "sbin/", "lib/"))
    severity: Severity = "low" if known else "high" if mode & 0o4000 else "medium"
    return found(
        "images",
        "setuid",
        severity,
        f"whoever runs /{path} has the rights of its {whose}",
        next_step="take the bit away (chmod a-s), or the file",
        place=Place(file=image, field="/" + path),
        subject=path,
    )


def _packages(image: str, state: _State, against: Against) -> Iterator[Result]:
    current = {path: data for path, (_, data) in state.databases.items()}
    release = (current.get("etc/os-release") or current.get("usr/lib/os-release") or b"").decode("utf-8", "replace")
    ecosystem = ecosystem_of(release)
    listed: list[Listed] = []
    for path, data in current.items():
        listed += _listed(path, data, ecosystem, f"{image}!{path}")
    unknown = ecosystem is None and any(_is_system(path) for path in current)
    if unknown:
        said = release.partition("\n")[0][:80] or "it doesn't say which"
        yield _unjudged(image, f"its distribution has no advisories here ({said})", "use Debian, Ubuntu or Alpine")
    if state.rpm:
        yield _unjudged(image, "packages of rpm aren't read", "use Debian, Ubuntu or Alpine")
    if not listed and not unknown and not state.rpm:
        yield _unjudged(image, "nothing in it says what is installed", "build it from a base with a package database")
    known = {(one.ecosystem, one.name, one.version) for one in listed if isinstance(one, Package)}
    yield from judge(_once(listed), against, scanner="images")
    earlier = [
        one
        for layer, path, data in state.replaced
        for one in _listed(path, data, ecosystem, f"{image}!layer {layer + 1}!{path}")
        if isinstance(one, Package) and (one.ecosystem, one.name, one.version) not in known
    ]
    for one in judge(_once(earlier), against, scanner="images"):
        if isinstance(one, Finding):
            said = f"{one.message}; only an earlier layer has it"
            yield msgspec.structs.replace(one, severity="low", message=said, rule="images/earlier-vulnerability")


def _once(listed: Iterable[Listed]) -> Iterator[Listed]:
    """Each package once, however many parts of it are installed."""
    seen: set[tuple[str, str, str]] = set()
    for one in listed:
        if isinstance(one, Package):
            key = (one.ecosystem, one.name, one.version)
            if key in seen:
                continue
            seen.add(key)
        yield one


def _is_system(path: str) -> bool:
    return path.startswith("var/lib/dpkg/status") or path.endswith("apk/db/installed")


def _listed(path: str, data: bytes, ecosystem: str | None, file: str) -> list[Listed]:
    if _is_system(path):
        if ecosystem is None:
            return []
        text = data.decode("utf-8", "replace")
        return list((of_apk if path.endswith("apk/db/installed") else of_dpkg)(text, ecosystem, file=file))
    if path.endswith("package.json"):
        return list(of_node_package(data, file=file))
    return [] if path.endswith("os-release") else list(of_metadata(data, file=file))


def _finding(rule: str, severity: Severity, layer: str, path: str, message: str, step: str) -> Result:
    return found("images", rule, severity, message, next_step=step, place=Place(file=f"{layer}!{path}"), subject=path)


def _unjudged(file: str, message: str, next_step: str) -> Unjudged:
    return Unjudged(scanner="images", message=message, next_step=next_step, place=Place(file=file))
