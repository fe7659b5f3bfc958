import sys

import pytest

from chimera_host.errors import AgentLoadError
from chimera_host.imports import BundleCode


@pytest.fixture
def make(tmp_path):
    made = []

    def one(number: int, files: dict[str, str]) -> BundleCode:
        folder = tmp_path / str(number)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        code = BundleCode("sha256:" + str(number) * 64, folder)
        made.append(code)
        return code

    yield one
    for code in made:
        code.forget()


TWINS = {
    "agent.py": "import helpers\nfrom tools.math import double\nimport tools.math\nimport json, os.path\n"
    "def factory():\n    import late\n"
    "    return helpers.NAME, double(2), tools.math.__name__, late.X, json.dumps({})\n",
    "tools/__init__.py": "",
    "tools/math.py": "from . import constants\nfrom helpers import NAME\ndef double(x): return x * constants.TWO\n",
    "tools/constants.py": "TWO = 2\n",
    "late.py": "import helpers\nX = helpers.NAME * 2\n",
}


def test_bundles_with_the_same_names_dont_collide(make):
    before = set(sys.modules)
    first = make(1, {**TWINS, "helpers.py": "NAME = 'first'\n"})
    second = make(2, {**TWINS, "helpers.py": "NAME = 'second'\n"})
    one, two = first.resolve("agent:factory")(), second.resolve("agent:factory")()
    assert one[:2] == ("first", 4) and two[:2] == ("second", 4)
    assert one[3] == "firstfirst" and two[3] == "secondsecond"
    assert one[2] == f"{first.package}.tools.math"
    added = {name for name in sys.modules if name not in before and not name.startswith("chimera_bundle_")}
    assert not added & {"helpers", "agent", "tools", "late"}


def test_a_module_of_the_bundle_hides_one_of_the_environment(make):
    code = make(1, {"agent.py": "import json\nf = json.mine\n", "json.py": "def mine(): return 'mine'\n"})
    assert code.resolve("agent:f")() == "mine"
    import json

    assert json.dumps({}) == "{}"


def test_import_of_a_package_without_init(make):
    code = make(
        1, {"agent.py": "from pkg.sub import f\nimport pkg.sub\ng = pkg.sub.f\n", "pkg/sub.py": "def f(): return 1\n"}
    )
    assert code.resolve("agent:g")() == 1


def test_forget_drops_all_modules(make):
    code = make(1, {**TWINS, "helpers.py": "NAME = ''\n"})
    function = code.resolve("agent:factory")
    code.forget()
    assert not [name for name in sys.modules if name.startswith(code.package)]
    assert callable(function)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing:f", "its modules: agent, broken"),
        ("agent:missing", "does not exist"),
        ("agent:NUMBER", "is not callable"),
        ("agent", "names no module"),
        ("broken:f", "ZeroDivisionError"),
        ("os:system", "names no module"),
        ("agent.deeper:f", "importing"),
    ],
)
def test_what_cant_be_resolved_is_explained(make, path, words):
    code = make(1, {"agent.py": "NUMBER = 1\ndef f(): ...\n", "broken.py": "1 / 0\n", "README.md": ""})
    with pytest.raises(AgentLoadError, match=words):
        code.resolve(path)


def test_nothing_compiled_is_left_in_a_bundle(make, monkeypatch):
    """Python keeps compiled files unless it is told not to; what is in a bundle's folder is what its digest says."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    code = make(1, {"app.py": "import helpers\nmake = helpers.make", "helpers.py": "def make(): return 1"})
    assert code.resolve("app:make")() == 1
    assert sorted(file.name for file in code.folder.rglob("*")) == ["app.py", "helpers.py"]
