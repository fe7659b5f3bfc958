"""Signatures, with the package `standardwebhooks` as their judge."""

import time

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from chimera.events import signing

KEY = bytes(range(32))
BODY = b'{"specversion": "1.0"}'


def test_a_receiver_accepts_what_we_sign() -> None:
    secret = signing.subscription_secret(KEY, "t", "sub_1", 1)
    headers = signing.signed([secret], "evt_1", time.time(), BODY)

    Webhook(signing.shown(secret)).verify(BODY, headers)


def test_during_a_rotation_the_old_and_the_new_secret_are_accepted() -> None:
    secrets = [signing.subscription_secret(KEY, "t", "sub_1", generation) for generation in (1, 2)]
    headers = signing.signed(secrets, "evt_1", time.time(), BODY)

    for secret in secrets:
        Webhook(signing.shown(secret)).verify(BODY, headers)


@pytest.mark.parametrize("other", [("u", "sub_1", 1), ("t", "sub_2", 1), ("t", "sub_1", 2)])
def test_every_subscription_and_rotation_has_a_secret_of_its_own(other: tuple[str, str, int]) -> None:
    headers = signing.signed([signing.subscription_secret(KEY, "t", "sub_1", 1)], "evt_1", time.time(), BODY)

    with pytest.raises(WebhookVerificationError):
        Webhook(signing.shown(signing.subscription_secret(KEY, *other))).verify(BODY, headers)


def test_names_can_not_run_into_each_other() -> None:
    assert signing.derive(KEY, "p", "ab", "c") != signing.derive(KEY, "p", "a", "bc")


def test_a_secret_is_read_as_it_is_shown() -> None:
    secret = signing.subscription_secret(KEY, "t", "sub_1", 1)

    assert signing.parse(signing.shown(secret)) == secret
    with pytest.raises(ValueError, match="24 to 64"):
        signing.parse("whsec_AAAA")
