"""The pages' examples run as they are printed, page by page, in a folder with small things of the names that they use:
a model `my-fisa`, `photo.jpg`, data sets, and folders called as the parts are called on the Hub.

An HTML comment on the line before a block says what is different: `not run: REASON`, or `run with: FLAGS` for flags
that make each of its commands small.
"""

import re
import runpy
import shlex
import shutil
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import pytest


ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (not run|run with): ([^>]+) -->\n)?```(python|bash)\n(.*?)```", re.DOTALL)


class Block(NamedTuple):
    """A fenced block: what the comment before it says, its language, its text."""

    note: str
    words: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*match) for match in BLOCK.findall(page.read_text(encoding="utf-8"))]


def run_command(command: list[str]) -> None:
    """Run a command of the package, or `python FILE.py` or `python -m MODULE`, in this process."""
    program, *arguments = command
    [script] = entry_points(group="console_scripts", name=program) or [None]
    if script is not None:
        assert not isinstance(status := script.load()(arguments), int) or status == 0, f"{command} ended with {status}"
        return
    assert program == "python", f"the pages' tests know no {program!r}"
    as_module = arguments[0] == "-m"
    sys.argv = arguments[as_module:]
    try:
        if as_module:
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
    except SystemExit as ended:
        assert not ended.code, f"{command} ended with {ended.code}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page, belongings, tmp_path, monkeypatch):
    shutil.copytree(belongings, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", sys.argv)
    names = {"__name__": "__main__"}
    for number, block in enumerate(blocks(page), start=1):
        if block.note == "not run":
            continue
        if block.language == "python":
            exec(compile(block.text, f"{page.name}, block {number}", "exec"), names)
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            if command := shlex.split(line, comments=True):
                run_command(command + shlex.split(block.words))


def test_every_block_that_is_left_out_says_why():
    left_out = [block for page in PAGES for block in blocks(page) if block.note == "not run"]
    assert left_out and all(len(block.words.split()) > 3 for block in left_out)


def test_every_page_is_in_the_site_and_in_the_readme():
    navigation, readme = (ROOT / "mkdocs.yml").read_text(), (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in navigation
        assert page.name == "index.md" or f"docs/{page.name}" in readme
