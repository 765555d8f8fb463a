"""Recipes: files of flags, which come first on the command line of `fisa-train`."""

import json
import re
from pathlib import Path
from typing import Any

import yaml


RECIPES = Path(__file__).resolve().parents[1] / "recipes"
RECIPE_ENDINGS = (".yaml", ".yml", ".json")


class _RecipeLoader(yaml.SafeLoader):
    """Reads dates and the words yes and no, which flags take as they are, as text: `--save_strategy no`. A name that
    comes twice in a mapping is an error: of its values YAML would keep the last."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(("timestamp", "bool"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = []
        for name, _ in node.value:
            if name.value in seen:
                raise yaml.MarkedYAMLError(problem=f'"{name.value}" comes twice', problem_mark=name.start_mark)
            seen.append(name.value)
        return super().construct_mapping(node, deep=deep)


_RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?i:true|false|on|off)$"), [*"tfoTFO"])


def with_recipe(arguments: list[str]) -> list[str]:
    """The flags of a recipe that comes first, before the flags that follow it and override it.

    Args:
        arguments: a recipe (a YAML or JSON file, or the name of one that ships) and flags, or flags alone.

    Raises:
        ValueError or OSError: a recipe that cannot be read.

    Example:

    ```python
    >>> with_recipe(["evaluate/voc_20", "--max_eval_samples", "10"])[:2]
    ['--model', 'runs/coco_panoptic/merged']
    ```
    """
    if not arguments or arguments[0].startswith("-"):
        return arguments
    recipe = _read_recipe(arguments[0])
    flags: list[str] = []
    for name, value in recipe.items():
        values = value if isinstance(value, list) else [value]
        if value is not None:
            flags += [f"--{name}", *(v if isinstance(v, str) else json.dumps(v) for v in values)]
    return flags + arguments[1:]


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))


def _read_recipe(name: str) -> dict[str, Any]:
    path = Path(name) if name.endswith(RECIPE_ENDINGS) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"No recipe {name!r}: name a YAML or JSON file, or one of {', '.join(shipped_recipes())}.")
    try:
        recipe = yaml.load(path.read_text(encoding="utf-8"), Loader=_RecipeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as YAML or JSON: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} holds no flags: a recipe is a mapping from the flags' names to their values.")
    return recipe
