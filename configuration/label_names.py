"""What the numbers in a map of classes are called, void included."""

VOID = -1  # of a semantic map's pixels that others win; in the map of a `Segmentation` and in COCO's PNGs void is 0


class LabelNames(dict[int, str]):
    """The names of classes by their numbers. −1, which is not a class, is called "void" when it is asked for:
    transformers' own pipeline asks for the name of each number in a map.

    Example:
        >>> names = LabelNames({0: "dog"})
        >>> names[0], names[-1], len(names)
        ('dog', 'void', 1)
    """

    def __missing__(self, number: int) -> str:
        if number == VOID:
            return "void"
        raise KeyError(number)


__all__ = ["VOID", "LabelNames"]
