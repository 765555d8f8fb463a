"""One segment of a photo: its place, its name, and what is known of it."""

from dataclasses import dataclass


Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Segment:
    """One segment of a [`~fisa.processing.segmentation.Segmentation`].

    Args:
        id (`int`): its number in the map, from 1.
        label (`str`): the name of its class.
        class_id (`int`): the place of its class in the vocabulary.
        score (`float` or `None`): in [0, 1]; semantic segments have none.
        is_thing (`bool` or `None`): whether its class is countable; `None` where the model's outputs do not say.
        area (`int`): its pixels in the map.
        box (`tuple[int, int, int, int]`): left, top, width and height of its pixels, all 0 where it has none.
        was_fused (`bool`): whether its class has one segment at most, made of all proposals of that class.
        is_other (`bool`): whether its class was not asked for but competed with those that were.

    Example:

    ```python
    >>> Segment(id=1, label="dog", class_id=0, score=0.9, is_thing=True, area=3, box=(0, 0, 2, 2)).label
    'dog'
    ```
    """

    id: int
    label: str
    class_id: int
    score: float | None
    is_thing: bool | None
    area: int
    box: Box
    was_fused: bool = False
    is_other: bool = False
