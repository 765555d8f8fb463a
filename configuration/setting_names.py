"""Misspelt names of settings are refused, with the right name in the error."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches


def refuse_misspelt(names: Iterable[str], *, known: Collection[str], owner: str) -> None:
    """Refuse names that are nearly, but not exactly, names of settings.

    All other names pass: transformers has many settings of its own, and files may contain those of other releases.

    Raises:
        TypeError: a name is misspelt; the message suggests the right one.

    Example:

    ```python
    >>> refuse_misspelt(["seve_layer"], known=["seve_layers", "seve_width"], owner="FisaConfig")
    TypeError: FisaConfig has no setting `seve_layer`; did you mean `seve_layers`?
    ```
    """
    for name in names:
        nearest = get_close_matches(name, known, n=1, cutoff=0.88)
        if nearest and name not in known:
            raise TypeError(f"{owner} has no setting `{name}`; did you mean `{nearest[0]}`?")


def refuse_unknown(names: Iterable[str], *, known: Collection[str], owner: str, purpose: str) -> None:
    """Refuse all names that are not settings, for an owner that passes no settings on.

    Raises:
        TypeError: a name is unknown; the message suggests the nearest one or lists all.

    Example:

    ```python
    >>> refuse_unknown(["pad"], known=["padding", "truncation"], owner="FisaProcessor", purpose="text")
    TypeError: FisaProcessor has no setting pad for text; did you mean `padding`?
    ```
    """
    for name in sorted(set(names) - set(known)):
        nearest = get_close_matches(name, known, n=1)
        hint = f"did you mean `{nearest[0]}`?" if nearest else f"it has {', '.join(sorted(known))}."
        raise TypeError(f"{owner} has no setting {name} for {purpose}; {hint}")


__all__ = ["refuse_misspelt", "refuse_unknown"]
