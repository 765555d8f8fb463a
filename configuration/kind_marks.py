"""The marks [thing] and [stuff] behind the name of a class."""

import re


_KINDS = {"thing": True, "stuff": False}
_MARK = re.compile(r"\s*\[([^\[\]]*)\]\s*$")


def split_kind(text: str) -> tuple[str, bool | None]:
    """Split "sky [stuff]" into the name and `is_thing`, `None` where the text does not say.

    Raises:
        ValueError: the text ends in square brackets with another word.

    Example:
        >>> split_kind("sky [stuff]"), split_kind("dog")
        (('sky', False), ('dog', None))
    """
    mark = _MARK.search(text)
    if mark is None:
        return text, None
    kind = mark[1].strip().lower()
    if kind not in _KINDS:
        raise ValueError(f'A class may end in [thing] or [stuff], found "{text}". Make it a Class if it is a name.')
    return text[: mark.start()], _KINDS[kind]


__all__ = ["split_kind"]
