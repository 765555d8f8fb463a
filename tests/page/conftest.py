"""The page as `fisa-app` serves it, in a process of its own."""

import shutil

import pytest

from tests.page.serving import serving


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """What [`serving`] gives, of one server for all tests."""
    pytest.importorskip("gradio", reason="the page needs Gradio, the extra `app`")
    with serving(tmp_path_factory.mktemp("page")) as page:
        yield page


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, without a window."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is opened with Playwright")
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()
