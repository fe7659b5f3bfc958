"""Repositories made with the real git, by people who have keys."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from chimera.testing.repositories import AGENT

NEEDS = [name for name in ("git", "ssh-keygen") if shutil.which(name) is None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if NEEDS and item.path.is_relative_to(here):
            item.add_marker(pytest.mark.skip(reason=f"needs {' and '.join(NEEDS)}"))


def private_key(kind: str) -> ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "ecdsa":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


@dataclass(kw_only=True)
class Person:
    """Somebody with a key and a clone."""

    name: str
    clone: Path
    key: Path
    public: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"{self.name}@example.com"

    def git(self, *arguments: str, check: bool = True, at: int | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment}
        if at is not None:
            environment["GIT_COMMITTER_DATE"] = f"{at} +0000"
        done = subprocess.run(
            ["git", *arguments], cwd=self.clone, env=environment, capture_output=True, text=True, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"git {' '.join(arguments)}: {done.stderr}")
        return done

    def commit(self, message: str, *options: str, **files: str | None) -> str:
        """A commit that is signed and signed off, of files by their names with `__` for `/`."""
        for name, text in files.items():
            path = self.clone / name.replace("__", "/")
            path = path.with_name(path.name + ".yaml") if not path.suffix else path
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message, *(options or ("-s", "-S")))
        return self.tip()

    def tip(self) -> str:
        return self.git("rev-parse", "HEAD").stdout.strip()

    def push(self, *arguments: str) -> str:
        """What the server says; empty where it took the push."""
        done = self.git("push", "origin", *arguments, check=False)
        return "" if done.returncode == 0 else done.stderr

    def say(self, kind: str, commit: str, name: str, word: str, *, at: int | None = None) -> str:
        tag = f"{kind}/{commit}/{name}"
        self.git("tag", "-f", "-s", "-m", word, tag, commit, at=at)
        return self.push(f"+refs/tags/{tag}")


@dataclass(kw_only=True)
class Server:
    """A bare repository, and the people who push to it."""

    bare: Path
    people: dict[str, Person]
    signers: Path

    def tip(self, ref: str = "refs/heads/main") -> str | None:
        done = subprocess.run(
            ["git", "--git-dir", str(self.bare), "rev-parse", "--verify", "-q", ref],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() or None


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """An unprotected bare repository with a first commit on `main`, and three people: ann, bob and ci."""
    bare = tmp_path / "catalogue.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    people, lines = {}, []
    for name, kind in (("ann", "ed25519"), ("bob", "ecdsa"), ("ci", "ed25519"), ("eve", "ed25519")):
        made = private_key(kind)
        key = tmp_path / f"{name}.key"
        key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        key.chmod(0o600)
        public = made.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        key.with_name(f"{name}.key.pub").write_text(public + "\n")
        home = tmp_path / f"home-{name}"
        home.mkdir()
        (home / ".gitconfig").write_text(
            f"[user]\nname = {name}\nemail = {name}@example.com\nsigningkey = {key}.pub\n[gpg]\nformat = ssh\n"
            "[init]\ndefaultBranch = main\n[advice]\ndetachedHead = false\n"
        )
        environment = {"HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
        people[name] = Person(name=name, clone=tmp_path / name, key=key, public=public, environment=environment)
        if name != "eve":
            lines.append(f"{name}@example.com {public}\n")
    signers = tmp_path / "signers"
    signers.write_text("".join(lines))
    ann = people["ann"]
    ann.clone.mkdir()
    ann.git("init", "-q")
    ann.git("remote", "add", "origin", str(bare))
    ann.commit("Begin", agents__hello=AGENT.format(name="hello", description="Answers."))
    assert not ann.push("main")
    for name in ("bob", "ci", "eve"):
        people[name].clone.mkdir()
        people[name].git("clone", "-q", str(bare), ".")
    return Server(bare=bare, people=people, signers=signers)
