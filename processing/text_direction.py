"""Which way text runs: Unicode's bidirectional algorithm (UAX #9) for one line without embeddings.

A name is drawn piece by piece, each in a font that has it, so the level of each character is needed. No library gives
it: python-bidi returns the reordered text alone (the tests compare with that), and Raqm, which Pillow uses, reorders
what one font draws, and only where the system has FriBiDi.
"""

from collections.abc import Sequence
from itertools import groupby
from unicodedata import bidirectional


NEUTRALS = {"B", "S", "WS", "ON", "BN"}
BRACKETS = {")": "(", "]": "[", "}": "{"}


def embedding_levels(text: str) -> list[int]:
    """The level of each character: odd where it runs from right to left. The first letter decides where the line
    begins.

    Example:

    ```python
    >>> embedding_levels("ab"), embedding_levels("אב 12")
    ([0, 0], [1, 1, 1, 2, 2])
    ```
    """
    kinds = [bidirectional(character) or "L" for character in text]
    base = next((int(kind != "L") for kind in kinds if kind in ("L", "R", "AL")), 0)
    direction = "LR"[base]
    kinds = _brackets_resolved(_weak_resolved(kinds, direction), text, direction)
    kinds = _neutrals_resolved(kinds, direction)
    up = ({"L": 0, "R": 1, "AN": 2, "EN": 2}, {"L": 2, "R": 1, "AN": 2, "EN": 2})[base]
    return [up[kind] for kind in kinds]


def visual_order(levels: Sequence[int]) -> list[int]:
    """The places of runs, from left to right, of which these are the levels (rule L2).

    Example:

    ```python
    >>> visual_order([1, 2, 1])
    [2, 1, 0]
    ```
    """
    order = list(range(len(levels)))
    for least in range(max(levels, default=0), 0, -1):
        turned: list[int] = []
        for is_turned, run in groupby(order, key=lambda place: levels[place] >= least):
            places = list(run)
            turned += reversed(places) if is_turned else places
        order = turned
    return order


def _weak_resolved(kinds: list[str], start: str) -> list[str]:
    # Rules W1 to W7, in this order.
    previous = start
    for place, kind in enumerate(kinds):
        previous = kinds[place] = previous if kind == "NSM" else kind
    strong = start
    for place, kind in enumerate(kinds):
        if kind in ("L", "R", "AL"):
            strong = kind
        elif kind == "EN" and strong == "AL":
            kinds[place] = "AN"
    kinds = ["R" if kind == "AL" else kind for kind in kinds]
    for place in range(1, len(kinds) - 1):
        around = kinds[place - 1], kinds[place + 1]
        if kinds[place] in ("ES", "CS") and around == ("EN", "EN") or kinds[place] == "CS" and around == ("AN", "AN"):
            kinds[place] = around[0]
    for kind, first, last in _runs(kinds):
        if kind == "ET" and "EN" in (kinds[first - 1 : first] + kinds[last : last + 1]):
            kinds[first:last] = ["EN"] * (last - first)
    kinds = ["ON" if kind in ("ES", "ET", "CS") else kind for kind in kinds]
    strong = start
    for place, kind in enumerate(kinds):
        if kind in ("L", "R"):
            strong = kind
        elif kind == "EN" and strong == "L":
            kinds[place] = "L"
    return kinds


def _brackets_resolved(kinds: list[str], text: str, base: str) -> list[str]:
    # Rule N0: a pair runs as what is in it does, if what stands before it does too.
    kinds = list(kinds)
    for first, last in _pairs(text, kinds):
        inside = {_side(kind) for kind in kinds[first + 1 : last]} - {None}
        before = next((side for side in map(_side, reversed(kinds[:first])) if side), base)
        if inside:
            kinds[first] = kinds[last] = base if base in inside else before
    return kinds


def _pairs(text: str, kinds: Sequence[str]) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    opened: list[int] = []
    for place, character in enumerate(text):
        if kinds[place] != "ON":
            continue
        if character in BRACKETS.values():
            opened.append(place)
        elif BRACKETS.get(character) in [text[place] for place in opened]:
            while text[opened[-1]] != BRACKETS[character]:
                opened.pop()
            pairs.append((opened.pop(), place))
    return sorted(pairs)


def _side(kind: str) -> str | None:
    return {"L": "L", "R": "R", "EN": "R", "AN": "R"}.get(kind)


def _neutrals_resolved(kinds: list[str], base: str) -> list[str]:
    # Rules N1 and N2.
    kinds = ["ON" if kind in NEUTRALS else kind for kind in kinds]
    sides = [base, *(_side(kind) for kind in kinds), base]
    resolved = list(kinds)
    for kind, first, last in _runs(kinds):
        if kind == "ON":
            before, after = sides[first], sides[last + 1]
            resolved[first:last] = [before if before == after and before else base] * (last - first)
    return resolved


def _runs(kinds: Sequence[str]) -> list[tuple[str, int, int]]:
    """Kind, begin and end of each run of one kind."""
    runs: list[tuple[str, int, int]] = []
    first = 0
    for kind, run in groupby(kinds):
        last = first + len(list(run))
        runs.append((kind, first, last))
        first = last
    return runs
