"""The host and the platform of these tests are the module's warm ones."""

import pytest


@pytest.fixture
def platform(warm_platform):
    return warm_platform


@pytest.fixture
def host(warm_host):
    return warm_host
