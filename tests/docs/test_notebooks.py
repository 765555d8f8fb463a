"""The notebooks run from top to bottom, each in a fresh kernel and an empty folder, its training a short one."""

import re
from pathlib import Path

import pytest


nbformat = pytest.importorskip("nbformat", reason="the notebooks run where nbclient and ipykernel are installed")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
PARAMETERS = {"fine_tune_on_your_folder": "steps = 3"}
LEAVES = {
    "fine_tune_on_your_folder": ["after/metrics.json", "report/side_by_side.png"],
    "method_in_pictures": ["proposals.png", "attention.png", "seve_and_zoom.png"],
    "segment_with_your_words": ["segments.png"],
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    notebook = nbformat.read(path, as_version=4)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert len(tagged) == (path.stem in PARAMETERS)
    for cell in tagged:
        cell.source = PARAMETERS[path.stem]
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all((tmp_path / file).stat().st_size for file in LEAVES[path.stem])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_is_named_in_the_site_and_the_readme(path):
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    assert path.stem in (ROOT / "mkdocs.yml").read_text() and path.name in (ROOT / "README.md").read_text()
    links = re.findall(r"\]\((\.\./[^)#]+)", "\n".join(cell.source for cell in notebook.cells))
    assert links and all((path.parent / link).exists() for link in links)
