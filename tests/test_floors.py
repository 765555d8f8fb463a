"""The house's floors: imports go down or stay on their floor, in the order of the table in docs/design.md, and no
modules import each other in a circle."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parent.parent


def floors() -> dict[str, int]:
    """The floor of each room, counted from the ground: a folder such as `data/` or a file such as `train.py`."""
    table = re.findall(r"^\| (`.+?) \|", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {room: floor for floor, row in enumerate(reversed(table)) for room in re.findall(r"`(.+?)`", row)}


def modules() -> dict[str, Path]:
    """Each module of the package by its name."""
    files = [*ROOT.glob("*.py"), *(file for init in ROOT.glob("*/__init__.py") for file in init.parent.rglob("*.py"))]
    names = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        names[".".join(("fisa", *(parts[:-1] if parts[-1] == "__init__" else parts)))] = file
    return names


def room(file: Path) -> str:
    first, *others = file.relative_to(ROOT).parts
    return f"{first}/" if others else first


def imports(file: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports, inside of functions too, but not as a program of its own."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'")
    ]
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}, line {node.lineno}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= {name if name in known else node.module for name in names}
    return imported & known.keys()


KNOWN = modules()
IMPORTS = {name: imports(file, KNOWN) for name, file in KNOWN.items()}


def test_every_module_has_a_floor():
    assert {room(file) for file in KNOWN.values()} == floors().keys()


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_imports_never_go_up(name):
    floor = floors()
    above = {other for other in IMPORTS[name] if floor[room(KNOWN[other])] > floor[room(KNOWN[name])]}
    assert not above, f"{name} imports {', '.join(sorted(above))} from a floor above its own"


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
