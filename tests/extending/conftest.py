"""The examples of docs/extending.md, imported as the plugins of a config."""

import pytest

from tests.extending.examples import loaded
from tvt_ray.vits import parse_space


@pytest.fixture
def plugins(tmp_path):
    """The default config with all of the examples."""
    with loaded(tmp_path) as config:
        yield config


@pytest.fixture
def plain(plugins):
    """The example's space."""
    return parse_space({"name": "plain"})
