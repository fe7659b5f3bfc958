"""What a first run downloads: the file that this Python takes, and what is common counted once."""

import pytest

from benchmarks.downloads import PARTS, added, files, fits
from examples import demo


@pytest.mark.parametrize(
    ("wheel", "minor", "fit"),
    [
        ("numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl", 11, True),
        ("numpy-2.4.6-cp312-cp312-manylinux_2_28_x86_64.whl", 11, False),
        ("cryptography-50-cp311-abi3-manylinux_2_34_x86_64.whl", 12, True),
        ("cryptography-50-cp312-abi3-manylinux_2_34_x86_64.whl", 11, False),
        ("click-8.5.0-py3-none-any.whl", 13, True),
        ("node-24-py2.py3-none-manylinux_2_28_x86_64.whl", 11, True),
        ("grpcio-1.85-cp313-cp313t-manylinux_2_28_x86_64.whl", 13, False),
    ],
)
def test_which_wheel_fits(wheel: str, minor: int, fit: bool) -> None:
    assert fits(wheel, minor) is fit


def test_a_package_is_its_compiled_wheel_else_its_source() -> None:
    wheels = [
        {"url": "https://x/a-1-py3-none-any.whl", "size": 10},
        {"url": "https://x/a-1-cp311-cp311-manylinux_2_28_x86_64.whl", "size": 90},
        {"url": "https://x/a-1-cp312-cp312-manylinux_2_28_x86_64.whl", "size": 99},
    ]
    source = {"url": "https://x/b-1.tar.gz", "size": 7}
    lock = {"packages": [{"wheels": wheels, "sdist": source}, {"sdist": source}, {"wheels": [], "sdist": source}]}
    assert files(lock, 11) == {"https://x/a-1-cp311-cp311-manylinux_2_28_x86_64.whl": 90, "https://x/b-1.tar.gz": 7}


def test_what_parts_have_in_common_is_counted_for_the_first() -> None:
    assert added([("a", {"x": 1, "y": 2}), ("b", {"y": 2, "z": 4}), ("c", {"x": 1})]) == {"a": 3, "b": 4, "c": 0}


def test_the_demo_says_a_size_for_each_runtime_that_it_installs() -> None:
    assert set(PARTS["demo"][1]) == set(demo.RUNTIMES) == demo.DOWNLOAD_MB.keys()
