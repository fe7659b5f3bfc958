"""Which database the settings name, and that its password is shown nowhere."""

import asyncio
from pathlib import Path

import pytest

from chimera.adapters.storage.errors import StorageAway, away
from chimera.adapters.storage.naming import database_name, password_reference, read_password
from chimera.adapters.storage.opening import shown
from chimera.bootstrap import database
from chimera.bootstrap.database import when_there
from chimera.kernel.settings import SettingsError
from chimera.platform.settings import NodeSettings
from chimera.testing.virtual_time import run

URL = "postgresql://chimera@db.example:5432/agents?sslmode=verify-full"


def test_without_a_setting_it_is_a_file_in_the_home(tmp_path: Path) -> None:
    assert database_name(NodeSettings(), tmp_path) == str(tmp_path / "chimera.db")
    assert password_reference(NodeSettings(), tmp_path) is None
    assert read_password(None, {}) is None


def test_a_servers_url_is_taken_as_it_is(tmp_path: Path) -> None:
    assert database_name(NodeSettings(database=URL), tmp_path) == URL


@pytest.mark.parametrize(
    "url", ["postgresql://chimera:hunter2@db/agents", "postgresql://db/agents?user=chimera&password=hunter2"]
)
def test_a_password_in_the_url_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        database_name(NodeSettings(database=url), tmp_path)
    assert "node.database_password" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in shown(url)


@pytest.mark.parametrize("name", ["mysql://db/agents", "chimera.db", "db.example:5432"])
def test_what_is_no_url_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="postgresql://"):
        database_name(NodeSettings(database=name), tmp_path)


def test_a_password_is_read_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    file.chmod(0o600)
    assert read_password(f"file:{file}", {}) == "hunter2"
    assert read_password("env:DB", {"DB": "hunter2"}) == "hunter2"

    file.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_password(f"file:{file}", {})
    for missing in ("env:NO", "file:/nowhere/at/all"):
        with pytest.raises(SettingsError):
            read_password(missing, {})


def test_a_secret_is_a_file_of_the_home_or_a_variable(tmp_path: Path) -> None:
    settings = NodeSettings(database_password="secret:db")
    assert password_reference(settings, tmp_path) == "env:CHIMERA_SECRET_db"
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "db").write_text("x")
    assert password_reference(settings, tmp_path) == f"file:{tmp_path}/secrets/db"


@pytest.mark.parametrize("given", ["hunter2", "env:", "vault:x"])
def test_a_password_as_itself_is_refused_and_not_repeated(tmp_path: Path, given: str) -> None:
    with pytest.raises(SettingsError) as caught:
        password_reference(NodeSettings(database_password=given), tmp_path)
    assert "hunter2" not in str(caught.value)


def test_a_server_that_is_not_there_yet_is_waited_for() -> None:
    async def main() -> None:
        asked = 0

        async def third_time() -> str:
            nonlocal asked
            asked += 1
            if asked < 3:
                raise away("not yet")
            return "there"

        async def never() -> str:
            raise away("never")

        assert await when_there(third_time) == "there"
        began = asyncio.get_running_loop().time()
        with pytest.raises(StorageAway):
            await when_there(never)
        assert asyncio.get_running_loop().time() - began <= database.START_TIMEOUT

    run(main())
