"""Others: words that compete with those that were asked for."""

import pytest

from fisa.processing.others import competing, everyday, given_others, known_others, without_namesakes
from fisa.processing.vocabulary import Vocabulary
from fisa.processing.word_meanings import WiderWords, calls_people_by


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


@pytest.mark.parametrize(
    ("asked", "other"), [("cap", "capes"), ("can", "canes"), ("plan", "planes"), ("tub", "tubes")]
)
def test_plurals_are_those_of_their_own_words(asked, other):
    assert names(without_namesakes(Vocabulary.parse(other), asked=[asked])) == [other]


@pytest.mark.parametrize("asked", ["boxes", "traffic_light", "Heroes", "wall-other-merged"])
def test_namesakes_are_told_in_any_spelling(asked):
    others = Vocabulary.parse("box, traffic light, hero, wall")
    assert len(without_namesakes(others, asked=[asked])) == 3


def test_synonyms_among_a_generators_labels_are_names_of_one_class():
    labels = ["road, route", "thing", "N/A", "window ", "object, lamp"]
    known = known_others("dog", labels)
    assert [other.prompts for other in known] == [("dog",), ("road", "route"), ("window",), ("lamp",)]
    assert names(competing(Vocabulary.parse("road"), known).others) == ["dog", "window", "lamp"]


@pytest.mark.parametrize("setting", ["none", "None", "Auto", "everyday", " known"])
def test_a_misspelt_setting_is_no_word(setting):
    with pytest.raises(ValueError, match="give None for none"):
        given_others(setting)
    assert len(given_others([setting])) == 1


@pytest.mark.parametrize("name", ["missing.txt", "missing.csv", "./missing"])
def test_what_reads_like_a_file_is_no_word(name):
    with pytest.raises((FileNotFoundError, ValueError), match=r"missing.*\.txt or (a )?\.json file"):
        given_others(name)


@pytest.mark.parametrize("words", [True, 3, {"dog"}, [3], "", ",", "dog, dog"])
def test_what_are_no_others_is_said_of_others(words):
    with pytest.raises((TypeError, ValueError), match="^`others`: "):
        given_others(words)


def test_of_several_lists_each_name_takes_part_once():
    asked, several = Vocabulary.parse("fox"), (*Vocabulary.parse("dog, cat"), *Vocabulary.parse("cats, wall"))
    assert names(competing(asked, several).others) == ["dog", "cat", "wall"]
    assert competing(asked, several).voices == ((),)


def test_kinds_speak_for_the_nearest_class_and_wider_words_stay_away():
    asked = Vocabulary.parse({"animal": [], "bird": ["birdie"], "sports car": [], "sky": []})
    others = Vocabulary.parse(
        {"dog": ["hound"], "eagle": [], "car": [], "vehicle": [], "wheel": [], "clouds": ["skies"]}
    )
    competition = competing(asked, others)
    assert names(competition.others) == ["wheel"]
    assert competition.voices == (("dog", "hound"), ("eagle",), (), ("clouds", "skies"))


ROLES, BY_AGE_AND_SEX = ("pedestrian", "tennis player", "driver"), ("man", "woman", "boy")


@pytest.mark.parametrize("asked", ROLES)
def test_whoever_has_a_role_may_be_a_man_or_a_woman(asked):
    others = Vocabulary.parse(["person", *ROLES, *BY_AGE_AND_SEX, "helmet"])
    assert names(competing(Vocabulary.parse([asked]), others).others) == [*(set_aside(ROLES, asked)), "helmet"]


@pytest.mark.parametrize("asked", [*BY_AGE_AND_SEX, "tall woman"])
def test_men_and_women_may_have_any_role(asked):
    others = Vocabulary.parse(["person", *ROLES, *BY_AGE_AND_SEX, "helmet"])
    named = asked.removeprefix("tall ")
    assert names(competing(Vocabulary.parse([asked]), others).others) == [*set_aside(BY_AGE_AND_SEX, named), "helmet"]


def set_aside(words, asked):
    return [word for word in words if word != asked]


def test_a_tree_by_each_of_its_names():
    others = Vocabulary.parse("tree, palm, hand, palm tree, pine tree")
    for asked, other in (("palm tree", "palm"), ("palm", "palm tree")):
        competition = competing(Vocabulary.parse(asked), others)
        assert names(competition.others) == ["hand", "pine tree"] and competition.voices == ((other,),)
    assert competing(Vocabulary.parse("tree"), others).voices == (("palm", "palm tree", "pine tree"),)


@pytest.mark.parametrize(("asked", "other"), [("glass", "glasses"), ("glasses", "glass")])
def test_words_that_are_only_spelt_like_plurals_compete(asked, other):
    assert names(without_namesakes(Vocabulary.parse(other), asked=[asked])) == [other]
    assert names(without_namesakes(Vocabulary.parse([asked, other]))) == [asked, other]
    assert names(competing(Vocabulary.parse(asked), Vocabulary.parse(other)).others) == [other]


def test_wine_glasses_are_glasses_of_a_kind():
    assert not without_namesakes(Vocabulary.parse("wine glass"), asked=["wine glasses"])
    assert not without_namesakes(Vocabulary.parse("stair"), asked=["stairs"])


def test_the_nearest_is_the_narrowest():
    asked = Vocabulary.parse("animal, mammal, object")
    assert competing(asked, Vocabulary.parse("poodle, chair")).voices == ((), ("poodle",), ("chair",))


@pytest.mark.parametrize("asked", ["animal", "poodle", "animal, dog, car", "woman", "pedestrian, dog"])
def test_competition_is_what_a_loop_over_all_pairs_finds(asked):
    asked, others = Vocabulary.parse(asked), without_namesakes(everyday())[::5]

    def is_kind_of(name, wider):
        return bool(WiderWords([wider]).above(name))

    def is_same(name, other):
        return 0 in WiderWords([other]).above(name).values()

    competition, asked_by = competing(asked, others), {calls_people_by(item.name) for item in asked} - {None}
    spoken = {name for voices in competition.voices for name in voices}
    for other in others:
        speaks = any(
            is_kind_of(other.name, item.name) or any(is_same(name, item.name) for name in other.synonyms)
            for item in asked
        )
        is_wide = any(is_kind_of(item.name, other.name) for item in asked)
        may_be_both = asked_by and calls_people_by(other.name) not in (None, *asked_by)
        assert (other in competition.others) == (not speaks and not is_wide and not may_be_both), other
        assert (other.name in spoken) == (speaks and other.name not in asked.names), other
