"""The page as `fisa-app` serves it, in a process of its own."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.ports import free_port


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """The address of the page, the process that serves it, and the folder with its uploads."""
    pytest.importorskip("gradio", reason="the page needs Gradio, the extra `app`")
    folder = tmp_path_factory.mktemp("page")
    port = free_port()
    environment = os.environ | {"GRADIO_TEMP_DIR": str(folder / "uploads"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fisa.app", "--port", str(port)]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                urllib.request.urlopen(address).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address, process, folder / "uploads"
    finally:
        process.terminate()
        process.wait()


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
