"""The files of the station's page: what they may hold. The page itself is tested in test_server_page.py."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import spadework

PAGE = Path(spadework.__file__).parent / "server" / "page"
SCRIPTS = sorted(PAGE.glob("*.js"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_never_read_text_as_markup_or_code(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|javascript:", text
    )
    assert not re.search(r"""setAttribute\(["']style""", text)  # the policy forbids it
    assert len(text.splitlines()) <= 500
    assert text.startswith("// ")  # says what it is


def test_nothing_is_loaded_from_elsewhere():
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|url\((?!#)", text), path.name


def test_the_document_keeps_to_the_policy():
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?![^>]*src=)", text)
    for name in re.findall(r"""(?:src|href)="static/([^"]+)""", text):
        assert (PAGE / name).is_file()


def test_every_module_that_is_imported_is_there():
    names = {path.name for path in SCRIPTS}
    for path in SCRIPTS:
        assert set(re.findall(r'from "\./([^"]+)"', path.read_text(encoding="utf-8"))) <= names


def test_the_page_is_in_the_distribution():
    project = tomllib.loads((PAGE.parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["spadework.server"]
    packed = {path for pattern in patterns for path in PAGE.parent.glob(pattern)}
    assert set(PAGE.iterdir()) <= packed
