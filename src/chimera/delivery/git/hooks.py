"""Webhooks of Git's hosts: whether one was signed with the key that both sides know.

A webhook is a hint and nothing else: it says "look now", and what is found there is what counts. So a forged one could
at most have us look. It is still refused, since looking costs. Three forms are taken: `X-Hub-Signature-256` (GitHub,
Gitea, Forgejo: HMAC-SHA256 of the body, in hex), Standard Webhooks (`webhook-signature`, which signs the time too), and
`X-Gitlab-Token` (GitLab: the key itself, which says nothing of the body). All but the second have no time in them, so
each is remembered and taken once; GitLab gives each event a name for that.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from chimera.delivery.git.errors import HookRefused
from chimera.events.signing import HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, SECRET_PREFIX

HUB = "x-hub-signature-256"
GITLAB_TOKEN, GITLAB_EVENT, GITLAB_NAME = "x-gitlab-token", "x-gitlab-event", "x-gitlab-event-uuid"
GITLAB_PUSH = "Push Hook"
TOLERANCE = 300.0
LEAST_KEY = 16
_LONGEST_NAME = 200


def verified(headers: Mapping[str, str], body: bytes, key: str, now: float) -> str:
    """A name of this very delivery, which comes once; raises `HookRefused`. `headers` have names in lower case."""
    if len(key) < LEAST_KEY:
        raise HookRefused(
            f"the key of this webhook is shorter than {LEAST_KEY} characters", next_step="make a longer one"
        )
    if HEADER_SIGNATURE in headers:
        return _standard(headers, body, key, now)
    if GITLAB_TOKEN in headers and HUB not in headers:
        return _gitlab(headers, body, key)
    given = headers.get(HUB, "")
    made = "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), made.encode()):
        raise _refused()
    return made


def tells_of_push(headers: Mapping[str, str]) -> bool:
    """Whether a webhook may tell of a branch that has moved: GitLab sends others to the same address if asked to."""
    return headers.get(GITLAB_EVENT, GITLAB_PUSH) == GITLAB_PUSH


def _gitlab(headers: Mapping[str, str], body: bytes, key: str) -> str:
    """GitLab sends the key itself. What the delivery is called can't be made up without the key."""
    if not hmac.compare_digest(headers[GITLAB_TOKEN].encode("utf-8", "surrogateescape"), key.encode()):
        raise _refused()
    name = headers.get(GITLAB_NAME, "")[:_LONGEST_NAME]
    content = name.encode("utf-8", "surrogateescape") + b"\0" + body
    return "gitlab=" + hmac.new(key.encode(), content, hashlib.sha256).hexdigest()


def _standard(headers: Mapping[str, str], body: bytes, key: str, now: float) -> str:
    name, timestamp = headers.get(HEADER_ID, ""), headers.get(HEADER_TIMESTAMP, "")
    if (
        not timestamp.isascii()
        or not timestamp.isdigit()
        or len(timestamp) > 12
        or not name
        or len(name) > _LONGEST_NAME
    ):
        raise _refused()
    if abs(now - int(timestamp)) > TOLERANCE:
        raise HookRefused("the webhook is too old, or from the future", next_step="see that both clocks are right")
    content = b".".join((name.encode("utf-8", "surrogateescape"), timestamp.encode(), body))
    made = b"v1," + base64.b64encode(hmac.digest(_secret(key), content, "sha256"))
    given = headers[HEADER_SIGNATURE].split(" ")
    if not any(hmac.compare_digest(one.encode("utf-8", "surrogateescape"), made) for one in given[:20]):
        raise _refused()
    return made.decode()


def _secret(key: str) -> bytes:
    if not key.startswith(SECRET_PREFIX):
        return key.encode()
    try:
        return base64.b64decode(key.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise _refused() from None


def _refused() -> HookRefused:
    return HookRefused("the webhook's signature is missing or doesn't fit", next_step="give both sides the same key")
