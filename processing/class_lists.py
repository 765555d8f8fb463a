"""Class lists of public data sets: for those that come without one, and for generators that bear their labels."""

from fisa.processing.published_classes import PUBLISHED_CLASSES
from fisa.processing.vocabulary import Vocabulary, read_class_lines


# The data set's own number of the first class of each list. Where that is 1, 0 stands for no label.
FIRST_IDS = {
    "ade20k_150": 1,
    "ade20k_847": 0,
    "cityscapes_19": 0,
    "coco_133": 0,
    "pascal_context_59": 1,
    "voc_20": 1,
    "voc_21": 0,
}


def class_list(name: str) -> Vocabulary:
    """A shipped class list, in the order of the data set's own numbers.

    Raises:
        ValueError: there is no list of that name; the message names those that there are.
    """
    if name not in FIRST_IDS:
        raise ValueError(f"No class list {name!r}; there are {', '.join(FIRST_IDS)}.")
    return Vocabulary(read_class_lines(PUBLISHED_CLASSES[name]))
