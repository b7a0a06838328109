import subprocess
import sys

import pytest


@pytest.mark.slow
def test_timm_and_transforms_import_after_the_check():
    code = (
        "from tvt_ray.vision_compat import ensure_torchvision; ensure_torchvision(); ensure_torchvision();"
        "import timm, torchvision; from torchvision.transforms import v2; v2.RandomHorizontalFlip(0.5); print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr
