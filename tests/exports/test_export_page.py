"""docs/export.md: its script runs with onnxruntime, numpy and Pillow alone, and its commands are understood."""

import re
import shlex
import subprocess
import sys

import pytest
from PIL import Image

from tests.conftest import REPO
from tests.exports.conftest import exported
from tvt_ray.cli.main import build_parser
from tvt_ray.exports import EXPORTS
from tvt_ray.exports.folder import load_student
from tvt_ray.exports.formats import ONNX_FILE

PAGE = (REPO / "docs" / "export.md").read_text()
(SCRIPT,) = re.findall(r'```python\n("""classify\.py.*?)```', PAGE, re.DOTALL)
# A fresh environment, as far as imports go: what the page names, what that needs, and Python's own.
ALONE = """
import runpy, sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "tvt_ray", "timm", "onnx", "onnxscript", "scipy", "pandas", "pydantic"}:
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Refused())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def photo(path, size=(90, 60)):
    """A smooth picture, as photographs are, in colour."""
    width, height = size
    image = Image.new("RGB", size)
    image.putdata([(255 * x // width, 255 * y // height, (x * y) % 256) for y in range(height) for x in range(width)])
    image.save(path, quality=95)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [False, True])
def test_the_script_gives_the_students_label_without_torch_or_tvt_ray(pixels, tmp_path):
    folder = exported("vit", "onnx", pixels)
    student, image = load_student(folder / "student"), photo(tmp_path / "photo.jpg")
    (tmp_path / "classify.py").write_text(SCRIPT)
    command = [sys.executable, "-c", ALONE, tmp_path / "classify.py", folder / ONNX_FILE, image]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    label, probability = done.stdout.split()
    ((expected, share),) = student.predict([Image.open(image)])
    assert label == expected
    assert float(probability) == pytest.approx(share, abs=0.005)


def test_the_script_is_short():
    assert 15 <= len([line for line in SCRIPT.splitlines() if line.strip()]) <= 25


def test_the_hook_refuses_torch(tmp_path):
    (tmp_path / "t.py").write_text("import torch")
    done = subprocess.run([sys.executable, "-c", ALONE, tmp_path / "t.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "torch is not there" in done.stderr


def test_what_the_page_says_to_run_can_be_run():
    commands = re.findall(r"^tvt (.*)$", PAGE, re.MULTILINE)
    assert [line.split()[0] for line in commands] == ["export", "predict", "predict", "predict"]
    for line in commands:
        build_parser().parse_args(shlex.split(line))


def test_every_format_is_a_row_of_the_page():
    listed = re.findall(r"^\| `(\w+)`(?: \(default\))? \| `(?:model|config)", PAGE, re.MULTILINE)
    assert listed == [name for name, export in EXPORTS.items() if export.on_demand]
