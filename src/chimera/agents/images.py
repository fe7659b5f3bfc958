"""Names of container images, by the grammar of the distribution project (`distribution/reference`): pure.

    name [":" tag] ["@" digest], name = [host [":" port] "/"] path

What stands before the first slash is a host where it has a dot or a colon, or is `localhost`; else it is the beginning
of the path, and the image is Docker Hub's. Of digests only SHA-256 is known here, by 64 digits.

The pattern is for the schema, so it is written in what JSON Schema and Kubernetes read alike: no groups with a
question mark, which the schema of a cluster leaves to the operator. How long a name may be is `parse_image`'s to say.
"""

import re

from msgspec import Struct

_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?"
_PORT = ":[0-9]+"
_HOST = rf"(({_LABEL}(\.{_LABEL})+|localhost|\[[a-fA-F0-9:]+\])({_PORT})?|{_LABEL}{_PORT})"
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_FIRST = r"[a-z0-9]+((_|__|-+)[a-z0-9]+)*"
_PATH = rf"{_PART}(/{_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}"
IMAGE_PATTERN = rf"^(({_HOST}|{_FIRST})/{_PATH}|{_PART})(:{_TAG})?(@{_DIGEST})?$"
LONGEST_NAME = 255
"""Characters of a name, without its tag and digest."""

_NAME = re.compile(rf"(?P<name>[^@]*?)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?")
_IS_HOST, _IS_PATH = re.compile(_HOST), re.compile(_PATH)


class ImageName(Struct, frozen=True, kw_only=True):
    """An image's name, taken apart. `host` has its port, and is None for Docker Hub; tag and digest may be missing."""

    host: str | None
    path: str
    tag: str | None
    digest: str | None

    @property
    def repository(self) -> str:
        """Host and path, as they were written."""
        return self.path if self.host is None else f"{self.host}/{self.path}"


def parse_image(text: str) -> ImageName | None:
    """The parts of an image's name; None where it isn't one."""
    match = _NAME.fullmatch(text)
    if match is None or len(match["name"]) > LONGEST_NAME:
        return None
    host, path = _split(match["name"])
    if (host is not None and not _IS_HOST.fullmatch(host)) or not _IS_PATH.fullmatch(path):
        return None
    return ImageName(host=host, path=path, tag=match["tag"], digest=match["digest"])


def _split(name: str) -> tuple[str | None, str]:
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return None, name
