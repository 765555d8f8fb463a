"""The marks [thing] and [stuff] behind the name of a class."""

import re


_KINDS = {"thing": True, "stuff": False}
_ROUND_MARK = re.compile(r"\((?:thing|stuff)\)\s*$", re.IGNORECASE)
_ANY_MARK = re.compile(r"\[\s*(?:thing|stuff)\s*\]", re.IGNORECASE)
_MARK = re.compile(r"\s*\[([^\[\]]*)\]\s*$")


def split_kind(text: str) -> tuple[str, bool | None]:
    """Split "sky [stuff]" into the name and `is_thing`, `None` where the text does not say.

    Raises:
        ValueError: the text ends in square brackets with another word, or in round ones with one of these; or there
            is a mark elsewhere, or a second one.

    Example:
        >>> split_kind("sky [stuff]"), split_kind("dog")
        (('sky', False), ('dog', None))
    """
    if _ROUND_MARK.search(text):
        raise ValueError(f'The marks [thing] and [stuff] are in square brackets, found "{text}".')
    mark = _MARK.search(text)
    refuse_mark(text if mark is None else text[: mark.start()])
    if mark is None:
        return text, None
    kind = mark[1].strip().lower()
    if kind not in _KINDS:
        raise ValueError(f'A class may end in [thing] or [stuff], found "{text}". Make it a Class if it is a name.')
    return text[: mark.start()], _KINDS[kind]


def refuse_mark(text: str) -> None:
    """Refuse a mark where none belongs: CLIP would read it.

    Raises:
        ValueError: there is [thing] or [stuff] in the text.

    Example:
        >>> refuse_mark("[stuff] sky")
        ValueError: [thing] or [stuff] stands behind the name of a class, once, found "[stuff] sky".
    """
    if _ANY_MARK.search(text):
        raise ValueError(f'[thing] or [stuff] stands behind the name of a class, once, found "{text}".')


__all__ = ["refuse_mark", "split_kind"]
