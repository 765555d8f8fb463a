"""transformers' own common tests, from its source distribution; `make test-transformers` fetches and unpacks it.

The distribution carries the files of `tests/` alone, none of its folders. What the mixins import from those stands in
here: two mixins of tests for text generators and for exporters become empty, as they would not apply.
"""

import sys
import unittest
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import transformers


FOLDER = Path(__file__).parents[2] / ".cache" / f"transformers-{transformers.__version__}" / "tests"
PACKAGE = "transformers_common_tests"

COMMON_SETTINGS = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["FisaForUniversalSegmentation"],
    "id2label": {0: "label"},
    "label2id": {"label": 0},
    "problem_type": "regression",
}
STAND_INS = {
    f"{PACKAGE}.exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    f"{PACKAGE}.generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    f"{PACKAGE}.utils.test_configuration_utils": {"config_common_kwargs": COMMON_SETTINGS},
    "fetch_hub_objects_for_ci": {"url_to_local_path": str},
}


def common(name: str) -> ModuleType:
    """One of the archive's modules, such as `test_modeling_common`; where there is no archive, the tests that need it
    are skipped."""
    if not FOLDER.exists():
        pytest.skip(f"{FOLDER}: no such folder; `make test-transformers` fetches it", allow_module_level=True)
    (FOLDER / "__init__.py").touch()  # read by one of the modules, and not in the distribution
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [str(FOLDER)]
        sys.modules[PACKAGE] = package
        for path, contents in STAND_INS.items():
            parent, _, _ = path.rpartition(".")
            if parent:
                sys.modules[parent] = ModuleType(parent)
            sys.modules[path] = ModuleType(path)
            vars(sys.modules[path]).update(contents)
    return import_module(f"{PACKAGE}.{name}")


def leave_out(reasons: dict[str, str]):
    """Skip, with its reason, each common test whose name begins like a key.

    Raises:
        ValueError: no test's name begins so.
    """

    def decorate(cls: type) -> type:
        for beginning, reason in reasons.items():
            names = [name for name in dir(cls) if name.startswith(beginning)]
            if not names:
                raise ValueError(f"No test of {cls.__name__} begins with {beginning}; take it off the list.")
            for name in names:
                setattr(cls, name, unittest.skip(f"{beginning}: {reason}")(getattr(cls, name)))
        return cls

    return decorate
