"""Names of settings: what is nearly one of them is a slip of the keyboard, and is refused with the right name."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches


def refuse_misspelt(names: Iterable[str], *, known: Collection[str], owner: str) -> None:
    """Refuse names that are nearly those of settings.

    Others are left alone: transformers has many of its own, and files may hold those of other releases.

    Raises:
        TypeError: with the name that was meant.

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
    """Refuse names that are no settings, where there is nobody else to whom they might mean something.

    Raises:
        TypeError: with the nearest name, or all that there are.

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
