"""The pages: that what they name exists, and that the reference of settings is what the code says."""

import subprocess
import sys

from tests.conftest import REPO


def test_the_reference_of_settings_is_what_its_command_prints():
    command = [sys.executable, "-m", "docs.settings"]
    printed = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert printed == (REPO / "docs" / "settings.md").read_text()
