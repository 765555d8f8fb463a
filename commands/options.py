"""What the commands' command lines share."""

import argparse

from fisa.processing.vocabulary import Vocabulary


def add_vocabulary_options(group: argparse._ArgumentGroup) -> None:
    """The options by which a command takes its classes; [`given_vocabulary`] reads them."""
    group.add_argument("--labels", help="the classes, with commas between (default: those stored in the model)")
    group.add_argument("--labels-file", help="a .txt or .json file with the classes")


def given_vocabulary(options: argparse.Namespace) -> Vocabulary | None:
    """The classes that a command was given, `None` if it was given none."""
    if options.labels_file is not None:
        return Vocabulary.from_file(options.labels_file)
    return None if options.labels is None else Vocabulary.parse(options.labels)
