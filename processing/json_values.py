"""JSON as people write it by hand, where a name can come twice in one object."""

import json
from typing import Any


def read_json_text(text: str) -> Any:
    """What a text of JSON holds.

    Raises:
        json.JSONDecodeError: it is no JSON.
        ValueError: an object has a name twice; of its values Python would keep the last, and programs in other
            languages the first.

    Example:
        >>> read_json_text('{"dog": ["puppy"]}')
        {'dog': ['puppy']}
    """
    return json.loads(text, object_pairs_hook=_with_names_once)


def _with_names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'"{twice}" comes twice in one object. Keep one, or give each a name of its own.')
    return values
