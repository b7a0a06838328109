"""Pages and figures in general: what no template may do, and how plots look."""

from __future__ import annotations

import re

import pytest
from jinja2 import UndefinedError

from tests.conftest import REPO
from tvt_ray.report.html import page

TEMPLATES = sorted((REPO / "tvt_ray" / "report" / "templates").glob("*.html"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_no_template_leaves_a_value_unescaped_or_an_attribute_unquoted(path):
    text = path.read_text()
    assert not re.search(r"\|\s*safe|autoescape", text)
    assert not re.search(r"=\{\{", text)


def test_a_value_that_a_page_lacks_is_an_error():
    with pytest.raises(UndefinedError, match="'found' is undefined"):
        page("comparison")
