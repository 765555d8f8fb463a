"""Others: words that compete with those that were asked for."""

import pytest

from fisa.processing.others import competing, everyday
from fisa.processing.vocabulary import Vocabulary


def names(others):
    return [other.name for other in others]


def test_everyday_things_and_stuff_are_a_vocabulary():
    words = everyday()
    assert {"dog", "car", "chair", "sky", "wall"} <= set(words.names)
    kinds = dict(zip(words.names, words.is_thing))
    assert kinds["dog"] and not kinds["sky"]


@pytest.mark.parametrize("asked", ["Dog", "dogs", "DOGS", "puppy", {"hound": ["dog"]}])
def test_what_was_asked_for_does_not_compete_with_itself(asked):
    others = Vocabulary.parse({"dog": ["puppy"], "cat": [], "wall-other-merged": []})
    assert names(competing(Vocabulary.parse(asked), others).others) == ["cat", "wall-other-merged"]


@pytest.mark.parametrize(
    ("one", "many"), [("box", "boxes"), ("bus", "buses"), ("berry", "berries"), ("house", "houses"), ("shoe", "shoes")]
)
def test_numbers_do_not_matter(one, many):
    for asked, other in ((one, many), (many, one)):
        assert not competing(Vocabulary.parse(asked), Vocabulary.parse(other)).others


def test_of_several_lists_each_name_takes_part_once():
    asked, several = Vocabulary.parse("fox"), (*Vocabulary.parse("dog, cat"), *Vocabulary.parse("cats, wall"))
    assert names(competing(asked, several).others) == ["dog", "cat", "wall"]
    assert competing(asked, several).voices == ((),)
