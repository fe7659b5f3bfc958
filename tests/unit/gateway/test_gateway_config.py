"""The gateway's configuration and settings: what is refused, and that it is said what to do."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chimera.bootstrap.event_parts import webhook_key
from chimera.bootstrap.gateway_config import (
    GatewayConfig,
    ModelConfig,
    allowed_hosts,
    load_settings,
    read_config,
    read_secret,
    resolve_key,
)
from chimera.events.settings import EventSettings
from chimera.gateway import guard
from chimera.gateway.errors import Forbidden
from chimera.gateway.settings import DeadlineSettings, GatewaySettings
from chimera.kernel.settings import SettingsError


def config(**fields: Any) -> GatewayConfig:
    made: dict[str, Any] = {
        "home": "/h",
        "key_file": "/k",
        "token_secret_file": "/t",
        "database": "/d",
        "control_plane_socket": "/c",
        "node_socket": "/n",
        **fields,
    }
    return GatewayConfig(**made)


def test_the_defaults_are_in_order() -> None:
    assert load_settings(config()) == GatewaySettings()
    chain = DeadlineSettings()
    assert chain.model < chain.tool < chain.host < chain.gateway < chain.platform < chain.termination_grace


@pytest.mark.parametrize(
    ("outer", "value"),
    [("tool", 119), ("host", 150), ("gateway", 590), ("platform", 590), ("termination_grace", 600)],
)
def test_a_deadline_that_is_not_longer_than_the_one_inside_is_refused(outer: str, value: float) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(config(settings={"deadlines": {outer: value}}))
    assert any(outer in problem for problem in raised.value.problems)


@pytest.mark.parametrize(
    "fields",
    [
        {"settings": {"nothing": {}}},
        {"settings": {"http": {"body_byte": 1}}},
        {"settings": {"events": {"allow": ["10.0.0.0/33"]}}},
        {"settings": {"events": {"allow": ["intranet"]}}},
        {"host": "0.0.0.0"},
        {"tls_certificate": "/x"},
        {"models": {"default": ModelConfig(provider="openai", timeout=500.0)}},
    ],
)
def test_what_is_refused(fields: Any) -> None:
    with pytest.raises(SettingsError):
        load_settings(config(**fields))


@pytest.mark.parametrize("fields", [{"behind_proxy": True}, {"tls_certificate": "/c", "tls_key": "/k"}])
def test_others_may_reach_it_through_tls(fields: Any) -> None:
    load_settings(config(host="0.0.0.0", **fields))


def test_a_configuration_comes_from_a_file_or_a_descriptor(tmp_path: Path) -> None:
    data = msgspec.json.encode(config(port=1))
    file = tmp_path / "config.json"
    file.write_bytes(data)
    assert read_config(str(file)).port == 1
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    assert read_config(str(reader)).port == 1
    file.write_text('{"home": 1}')
    with pytest.raises(SettingsError):
        read_config(str(file))


def test_secrets_are_files_that_nobody_else_reads(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("x" * 32 + "\n")
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_secret(str(file), "key")
    file.chmod(0o600)
    assert read_secret(str(file), "key") == b"x" * 32
    assert resolve_key(f"file:{file}", {}, "m") == "x" * 32
    assert resolve_key("env:A", {"A": "b"}, "m") == "b"
    assert resolve_key(None, {}, "m") is None
    file.write_text("short")
    with pytest.raises(SettingsError):
        read_secret(str(file), "key")
    for reference in ("env:MISSING", "sk-plain", "env:", f"file:{tmp_path / 'none'}"):
        with pytest.raises(SettingsError) as raised:
            resolve_key(reference, {}, "m")
        assert "sk-plain" not in str(raised.value)


def test_hosts_that_may_be_named() -> None:
    assert {"localhost", "127.0.0.1", "[::1]", "chimera.test", "::1".join("[]")} <= allowed_hosts(
        config(host="::1", hosts=("Chimera.Test",))
    )


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:9", " localhost "])
def test_own_names(host: str) -> None:
    guard.check_host(host, guard.LOOPBACK_NAMES)


@pytest.mark.parametrize("host", [None, "", "evil", "localhost.evil", "127.0.0.1.evil:80", "[::1].evil", "::1"])
def test_other_names(host: str | None) -> None:
    with pytest.raises(Forbidden):
        guard.check_host(
            host, guard.LOOPBACK_NAMES - {"[::1]"} if host and host.startswith("[") else guard.LOOPBACK_NAMES
        )


@pytest.mark.parametrize(
    ("address", "inside"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("x", False)],
)
def test_loopback(address: str, inside: bool) -> None:
    assert guard.is_loopback(address) is inside


def test_all_gateways_of_an_installation_sign_with_one_key_and_keep_none_of_their_own(tmp_path: Path) -> None:
    mounted = tmp_path / "webhooks.key"
    mounted.write_text("k" * 43)
    mounted.chmod(0o444)
    homes = [tmp_path / name for name in ("one", "other")]
    for home in homes:
        home.mkdir()
    told = [config(home=str(home), webhook_key_file=str(mounted), mounted_secrets=True) for home in homes]
    events = load_settings(told[0]).events
    assert [webhook_key(one, events) for one in told] == [b"k" * 43] * 2
    assert not any((home / "webhooks.key").exists() for home in homes)
    # Without it each has its own, made once; and whatever settings name comes first.
    own = [config(home=str(home)) for home in homes]
    first, second = (webhook_key(one, events) for one in own)
    assert first != second and webhook_key(own[0], events) == first
    chosen = tmp_path / "chosen"
    chosen.write_text("c" * 43)
    chosen.chmod(0o600)
    assert webhook_key(told[0], EventSettings(key=str(chosen))) == b"c" * 43
    (tmp_path / "short").write_text("short")
    with pytest.raises(SettingsError, match="webhook_key_file"):
        webhook_key(msgspec.structs.replace(told[0], webhook_key_file=str(tmp_path / "short")), events)
