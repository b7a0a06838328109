"""What an architecture is read for, in a space that is enumerated in a moment and in one that is not."""

import pytest

from tests.searchers.dealing import make_task
from tests.searchers.driving import MEDIUM


@pytest.fixture
def task(space, digits):
    return make_task(space, digits)


@pytest.fixture
def medium_task(digits):
    return make_task(MEDIUM, digits)
