"""The settings file: what is wrong in it is said, and never a traceback."""

from pathlib import Path

import pytest

from chimera.bootstrap.gateway_config import GatewayConfig, load_settings
from chimera.bootstrap.settings import load
from chimera.gateway.settings import gateway_groups
from chimera.kernel.settings import SettingsError

PATHS = dict.fromkeys(["home", "key_file", "token_secret_file", "database", "control_plane_socket", "node_socket"], "x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("node = 3", "node: a group is a table"),
        ("[node]\ntick = 'fast'", "tick"),
        ("[nodes]\n", "unknown group 'nodes'"),
        ("[model]\ndefault = 3", "model"),
        ("[model]\n\n[", "settings.toml"),
        ("http = []", "http: a group is a table"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, {})
    assert words in str(refused.value)


def test_a_variable_overrides_the_file(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[node]\ntick = 3.0\n")
    assert load(tmp_path, {}).node.tick == 3.0
    assert load(tmp_path, {"CHIMERA_NODE__TICK": "4"}).node.tick == 4.0


def test_a_variable_of_a_group_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("node = 3")
    with pytest.raises(SettingsError, match="node: a group is a table"):
        load(tmp_path, {"CHIMERA_NODE__TICK": "4"})


def test_issuers_are_tables_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    text = """
    [issuer.login]
    issuer = "https://login.example.com"
    audience = "chimera"
    jwks = "https://login.example.com/keys"
    tenant = "default"
    [issuer.login.roles]
    ops = "operator"
    """
    file.write_text(text)
    assert load(tmp_path, {}).issuers["login"].roles == {"ops": "operator"}
    for wrong in (text.replace("https://login.example.com/keys", "http://x"), text.replace("audience", "audiense")):
        file.write_text(wrong)
        with pytest.raises(SettingsError, match=r"issuer"):
            load(tmp_path, {})


@pytest.mark.parametrize("group", sorted(gateway_groups()))
def test_every_documented_group_can_be_set_and_reaches_the_gateway(tmp_path: Path, group: str) -> None:
    (tmp_path / "settings.toml").write_text(f"[{group}]\n")
    given = load(tmp_path, {}).gateway
    assert given == {group: {}}
    load_settings(GatewayConfig(settings=given, **PATHS))


def test_a_number_of_any_group_is_the_gateways(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[state]\nholder_life = 2\n[tasks]\nlease = 3\n")
    settings = load_settings(GatewayConfig(settings=load(tmp_path, {"CHIMERA_QUOTA__BEAT": "4"}).gateway, **PATHS))
    assert (settings.state.holder_life, settings.tasks.lease, settings.quota.beat) == (2, 3, 4)
