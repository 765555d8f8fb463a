"""What gets installed: the repository root as the package `fisa`, without the tests, whatever its folder is called;
and what `import fisa` costs."""

import json
import os
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.data.made_files import write_voc


ROOT = Path(__file__).resolve().parent.parent
MODULES = (
    "fisa",
    "fisa.acceleration",
    "fisa.commands",
    "fisa.configuration",
    "fisa.data",
    "fisa.evaluation",
    "fisa.formats",
    "fisa.modeling_fisa",
    "fisa.page",
    "fisa.pretrained",
    "fisa.processing",
    "fisa.training",
)
EXTRAS = {
    "accelerate",
    "datasets",
    "evaluate",
    "gradio",
    "hotcoco",
    "matplotlib",
    "onnx",
    "peft",
    "supervision",
    "tensorboard",
}


def run(*command, cwd):
    """Output of `command`, run without the paths that this process' environment adds to Python's."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, f"{command} failed:\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the repository in a folder whose name is no package name."""
    built = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("packaging") / "my checkout-2", ignore=built)


@pytest.fixture(scope="module")
def distributions(checkout, tmp_path_factory):
    """The folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, checkout, cwd=folder)
    return folder


def make_environment(folder, *requirement):
    """A new virtual environment with `requirement` installed; all else it borrows from the running one. Its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    [site_packages] = folder.glob("lib/python*/site-packages")
    # A path in a .pth file is searched, but the .pth files in it are not read: no import hook for `fisa` comes along.
    (site_packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *requirement, cwd=folder)
    return python


def locate(python, cwd):
    """The file of each of `MODULES` as `python` finds it, the version installed and the version imported."""
    script = (
        "import importlib, importlib.metadata, json\n"
        f"files = {{name: importlib.import_module(name).__file__ for name in {MODULES}}}\n"
        "import fisa\n"
        "print(json.dumps([files, importlib.metadata.version('fisa'), fisa.__version__]))"
    )
    return json.loads(run(python, "-I", "-c", script, cwd=cwd).splitlines()[-1])


def expected_files(package_root):
    return {name: str(package_root.joinpath(*name.split(".")[1:], "__init__.py")) for name in MODULES}


def test_wheel_holds_every_module_and_nothing_else(checkout, distributions):
    packages = [checkout, *(init.parent for init in checkout.glob("*/__init__.py") if init.parent.name != "studies")]
    modules = {file.relative_to(checkout).as_posix() for package in packages for file in package.glob("*.py")}

    [wheel] = distributions.glob("*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert all(name.startswith("fisa/") for name in names)
    assert {name.removeprefix("fisa/") for name in names if name.endswith(".py")} == modules
    assert not any(name.startswith("fisa/tests/") for name in names)
    assert "fisa/py.typed" in names


def test_wheel_holds_what_users_run_and_no_more(distributions):
    [wheel] = distributions.glob("*.whl")
    assert wheel.stat().st_size <= 13e6  # of which 3.5 are fonts for all scripts, 8 the model that ships
    names = {name.removeprefix("fisa/") for name in zipfile.ZipFile(wheel).namelist()}
    assert not {name for name in names if name.startswith(("studies/", "docs/", "tests/")) or "/pack/" in name}
    assert {"pretrained/checkpoint/adapter/adapter_model.safetensors", "pretrained/scenes/easy.jpg"} <= names
    fonts = {f"processing/fonts/{path.name}" for path in (ROOT / "processing" / "fonts").iterdir()}
    assert {name for name in names if name.startswith("processing/fonts/")} == fonts
    assert {"processing/fonts/DroidSansFallback.ttf", "processing/fonts/OFL.txt"} <= fonts
    recipes = {"coco_panoptic", *(f"evaluate/{path.stem}" for path in (ROOT / "recipes" / "evaluate").iterdir())}
    assert {name for name in names if name.startswith("recipes/")} == {f"recipes/{name}.yaml" for name in recipes}


def test_sdist_has_no_tests(distributions):
    [sdist] = distributions.glob("*.tar.gz")
    names = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
    assert {"setup.cfg", "LICENSE", "__init__.py", "processing/__init__.py"} <= names
    assert not {name for name in names if name.startswith(("tests", ".", "build"))}


def test_wheel_install(distributions, tmp_path):
    python = make_environment(tmp_path / "environment", *distributions.glob("*.whl"))
    [site_packages] = (tmp_path / "environment").glob("lib/python*/site-packages")
    files, installed, imported = locate(python, cwd=tmp_path)
    assert files == expected_files(site_packages / "fisa")
    assert installed == imported


def test_commands_away_from_a_checkout(distributions, tmp_path):
    python = make_environment(tmp_path / "environment", *distributions.glob("*.whl"))
    [package] = (tmp_path / "environment").glob("lib/python*/site-packages/fisa")
    commands = python.parent
    for name in ("fisa-demo", "fisa-export", "fisa-segment", "fisa-train"):
        assert run(commands / name, "--help", cwd=tmp_path).startswith(f"usage: {name} ")
    run(commands / "fisa-demo", "--output", "pictures", cwd=tmp_path)
    scenes = {path.stem for path in (package / "pretrained" / "scenes").iterdir()}
    pictures = {"demo.png", *(f"{name}_overlay.png" for name in scenes)}
    assert {path.name for path in (tmp_path / "pictures").glob("*.png")} == pictures
    options = ("--model", package / "pretrained" / "checkpoint", "--eval_data", write_voc(tmp_path / "VOC"))
    options += ("--output_dir", "results", "--use_cpu", "true", "--dataloader_num_workers", "0")
    run(commands / "fisa-train", "evaluate/voc_20", *options, cwd=tmp_path)
    assert json.loads((tmp_path / "results" / "metrics.json").read_text())["num_images"] == 1


def test_editable_install(checkout, tmp_path):
    python = make_environment(tmp_path / "environment", "--editable", checkout)
    files, installed, imported = locate(python, cwd=tmp_path)
    assert files == expected_files(checkout)
    assert installed == imported


def test_tests_are_no_package():
    # With an __init__.py, pytest would count them to the root's package, and run fisa again under the folder's name.
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_import_is_cheap_and_leaves_the_extras_alone(tmp_path):
    script = (
        "import json, sys, time, torch, transformers, transformers.models.clip.modeling_clip\n"
        "before, start = set(sys.modules), time.process_time()\n"
        "import fisa\n"
        "print(json.dumps([time.process_time() - start, sorted(set(sys.modules) - before)]))"
    )
    # The least of three: a busy machine only ever adds to it, as does the first run after an edit.
    for _ in range(3):
        seconds, added = json.loads(run(sys.executable, "-c", script, cwd=tmp_path).splitlines()[-1])
        if seconds < 1:
            break
    assert seconds < 1, f"import fisa took {seconds:.1f} s of CPU time beyond torch and transformers"
    assert not EXTRAS & {name.partition(".")[0] for name in added}
