"""What `make test-matrix` runs: the tests, with the oldest and newest supported libraries, on each Python there is.

    python tests/matrix.py [--python 3.11] [--libraries oldest] [WHAT PYTEST TAKES …]

Environments lie in .cache/matrix; a Python that is not on the machine is named and left out.
"""

import argparse
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path


PYTHONS = ("3.11", "3.12", "3.13")
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
# Of the oldest libraries, what they ask of each other was often mended in later ones.
WARNINGS = {
    "oldest": [f"-Wdefault::{kind}Warning" for kind in ("Deprecation", "PendingDeprecation", "Future")],
    "newest": [],
}
SHOWN = ("torch", "transformers", "peft", "numpy")
PLACE = Path(".cache/matrix")
UV = PLACE / "tools/bin/uv"


def interpreter(version: str) -> str | None:
    """The Python of this version: on the path, of this process or of pyenv."""
    if sys.version.startswith(f"{version}."):
        return sys.executable
    of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    return str(of_pyenv[-1]) if of_pyenv else shutil.which(f"python{version}")


def environment(version: str, libraries: str) -> Path | None:
    """The Python of a new environment with the package, its extras and the libraries; `None` without such a Python."""
    python = interpreter(version)
    if python is None:
        return None
    folder = PLACE / f"{version}-{libraries}"
    # With pip, which the tests of the package install it with.
    subprocess.run([UV, "venv", "--quiet", "--clear", "--seed", "--python", python, folder], check=True)
    install = [UV, "pip", "install", "--quiet", "--resolution", RESOLUTIONS[libraries], "--editable", ".[dev,train]"]
    subprocess.run(install, check=True, env=os.environ | {"VIRTUAL_ENV": str(folder.resolve())})
    return folder / "bin" / "python"


def versions(python: Path) -> str:
    """What of the libraries is in an environment."""
    code = f"from importlib.metadata import version as v; print(*(f'{{name}} {{v(name)}}' for name in {SHOWN}))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run the tests with the oldest and the newest libraries.", allow_abbrev=False
    )
    parser.add_argument(
        "--python", action="append", choices=PYTHONS, help="one of them; may be repeated (default: all)"
    )
    parser.add_argument("--libraries", choices=RESOLUTIONS, help="one of them (default: both)")
    options, tests = parser.parse_known_args()
    if not UV.exists():
        venv.create(UV.parent.parent, with_pip=True)
        subprocess.run([UV.with_name("python"), "-m", "pip", "install", "--quiet", "uv"], check=True)
    results = []
    for version in options.python or PYTHONS:
        for libraries in [options.libraries] if options.libraries else RESOLUTIONS:
            python = environment(version, libraries)
            if python is None:
                results.append((version, libraries, "SKIPPED: this Python is not on the machine"))
                continue
            command = [python, "-m", "pytest", "-q", "-n", "auto", "--dist", "loadscope", "-p", "no:cacheprovider"]
            status = subprocess.run(
                [*command, *WARNINGS[libraries], *tests], env=os.environ | {"OMP_NUM_THREADS": "1"}
            ).returncode
            results.append((version, libraries, f"{'passed' if status == 0 else 'FAILED'} with {versions(python)}"))
    print(*(f"Python {version}, {libraries} libraries: {result}" for version, libraries, result in results), sep="\n")
    return int(any(result.startswith("FAILED") for *_, result in results))


if __name__ == "__main__":
    sys.exit(main())
