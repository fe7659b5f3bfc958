import msgspec
import pytest

from chimera_host.config import HostConfig, from_environment
from chimera_host.contract.problem import ProblemError

REQUIRED = {
    "CHIMERA_CELL": "cell-1",
    "CHIMERA_FRAMEWORK": "function",
    "CHIMERA_PLATFORM_URL": "http://gateway",
    "CHIMERA_WORK_DIR": "/work-dir",
}


def test_the_environment_is_read_and_secrets_are_taken_out(tmp_path):
    (tmp_path / "key").write_text("the key\n")
    environ = {
        **REQUIRED,
        "CHIMERA_PLATFORM_TOKEN": "the token",
        "CHIMERA_HOST_KEY_FILE": str(tmp_path / "key"),
        "PORT": "9090",
        "HOSTNAME": "pod-7",
        "CHIMERA_IDLE_UNLOAD": "12.5",
        "UNRELATED": "x",
    }
    config = from_environment(environ)
    assert (config.port, config.host, config.idle_unload) == (9090, "pod-7", 12.5)
    assert (config.platform_token, config.host_key) == ("the token", "the key")
    assert "CHIMERA_PLATFORM_TOKEN" not in environ


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "host_key"),
        ({"CHIMERA_HOST_KEY": "k", "PORT": "many"}, "port"),
        ({"CHIMERA_HOST_KEY": "k", "CHIMERA_FRAMEWORK": "none"}, "framework"),
        ({"CHIMERA_HOST_KEY_FILE": "/missing/file"}, "CHIMERA_HOST_KEY_FILE"),
    ],
)
def test_what_is_wrong_with_it_is_named(change, words):
    with pytest.raises(ProblemError, match=words):
        from_environment({**REQUIRED, "CHIMERA_PLATFORM_TOKEN": "t", **change})


def test_a_pod_has_an_identity_instead_of_a_token_and_a_key():
    config = from_environment({**REQUIRED, "CHIMERA_IDENTITY_FILE": "/var/token"})
    assert (config.identity_file, config.platform_token, config.host_key) == ("/var/token", "", "")


def test_a_configuration_survives_json():
    config = HostConfig(
        host="h", cell="c", framework="crewai", platform_url="u", platform_token="t", host_key="k", work_dir="w"
    )
    assert msgspec.json.decode(msgspec.json.encode(config), type=HostConfig) == config
