"""Which repositories may be followed: by scheme, host and folder.

Only the schemes `https`, `http` and `file` are known: `ssh`, `ext` and others run programs, or hand a host's name to
one. A host is allowed by name and port. Redirects are not followed, so what was allowed is what is reached.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from chimera.delivery.git.errors import AddressRefused
from chimera.delivery.git.settings import SyncSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a repository is: its address, and for one on this machine its folder."""

    url: str
    folder: str | None


def check_address(url: str, settings: SyncSettings) -> Address:
    """The address that `url` names; raises `AddressRefused`."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise _refused(url, "it holds characters that no address has", "write them as %XX")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused(url, str(error), "check it") from None
    if parts.scheme == "file":
        return Address(url=url, folder=_folder(url, parts.netloc, parts.path, settings))
    if parts.scheme not in ("https", "http"):
        raise _refused(url, f"its scheme {parts.scheme!r} is not supported", "use https")
    if parts.username is not None or parts.password is not None:
        raise _refused(url, "it holds a credential", "store it as a secret, and name that (`--credential`)")
    if parts.query or parts.fragment:
        raise _refused(url, "it has a query or a fragment", "leave it out")
    host = (parts.hostname or "").lower()
    if not host or host.startswith("-"):
        raise _refused(url, "it names no host", "check it")
    named = host if port is None else f"{host}:{port}"
    if named not in {one.lower() for one in settings.hosts}:
        raise _refused(url, f"the host {named} is not allowed", "add it to the setting `sync.hosts`")
    if parts.scheme == "http" and named not in {one.lower() for one in settings.insecure_hosts}:
        raise _refused(url, f"{named} may not be reached by http", "use https, or see `sync.insecure_hosts`")
    return Address(url=url, folder=None)


def _folder(url: str, host: str, path: str, settings: SyncSettings) -> str:
    folder = PurePosixPath(unquote(path))
    if host not in ("", "localhost"):
        raise _refused(url, "a file is on this machine", "write file:///FOLDER")
    if not folder.is_absolute() or ".." in folder.parts or "\0" in str(folder):
        raise _refused(url, "it names no folder by its whole path", "write file:///FOLDER")
    if not any(folder.is_relative_to(PurePosixPath(one)) for one in settings.folders):
        raise _refused(url, "this folder is not allowed", "add it to the setting `sync.folders`")
    return str(folder)


def _refused(url: str, why: str, step: str) -> AddressRefused:
    shown = url if "@" not in url else "it"
    return AddressRefused(f"{shown[:200]} can't be followed: {why}", next_step=step)
