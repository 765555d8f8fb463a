"""Damage to JSON files, as hypothesis draws it."""

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 400),
    st.sampled_from([10**6, 2**31, 2**63, 10**400, 1.5, 7.0, float("nan"), float("inf"), -1e300]),
    st.sampled_from(["", " ", "7", "7.jpg", "../../etc/passwd", "/etc/passwd", "a\0b", "\ud800", "x" * 5000]),
    st.text(max_size=4),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)
CHANGES = st.lists(
    st.tuples(st.sampled_from(["replace", "remove", "repeat"]), st.integers(0, 10_000), VALUES), min_size=1, max_size=3
)


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key in a tree."""
    for key in list(content) if isinstance(content, dict) else range(len(content)):
        yield content, key
        if isinstance(content[key], dict | list):
            yield from places(content[key])


def changed(content: Any, changes: list[tuple[str, int, Any]]) -> Any:
    """A copy of a tree with a value replaced, taken out or repeated, once for each of the drawn changes."""
    content = json.loads(json.dumps(content))
    for kind, number, value in changes:
        everywhere = [*places(content)]
        if not everywhere:
            return value
        container, key = everywhere[number % len(everywhere)]
        if kind == "remove":
            del container[key]
        elif kind == "repeat" and isinstance(container, list):
            container.append(container[key])
        else:
            container[key] = value
    return content
