"""Vocabularies: every form that labels come in, what is refused, and what the prompts are."""

import json
import time

import pytest

from fisa.processing.class_names import is_file_name
from fisa.processing.vocabulary import PROMPT_TEMPLATES, Class, Vocabulary, resolve_templates
from tests.quiet import raising_on_any_warning


DOG, CURTAIN = Class("dog", ("puppy",), True), Class("curtain", (), False)


@pytest.mark.parametrize(
    "labels",
    [
        "dog, curtain [stuff]",
        ["dog", Class("curtain", is_thing=False)],
        ("dog", {"name": "curtain", "is_thing": False}),
        (label for label in ["dog [thing]", " curtain  [ Stuff ] "]),
        {"dog": [], "curtain [stuff]": []},
        [{"id": 18, "name": "dog", "isthing": 1, "color": [0, 0, 0]}, {"id": 5, "name": "curtain", "isthing": 0}],
    ],
)
def test_every_form_of_labels_says_the_same(labels):
    assert Vocabulary.parse(labels) == Vocabulary([Class("dog", (), True), Class("curtain", (), False)])


@pytest.mark.parametrize(
    "text",
    [
        "bird; red fish",
        "bird\nred fish\n",
        "bird,\n  red fish",
        "bird\n\nred  fish",
        "bird. red fish.",
        "bird . red fish .",
        " bird.\tred fish. ",
    ],
)
def test_separators_that_people_use(text):
    assert Vocabulary.parse(text).names == ["bird", "red fish"]


@pytest.mark.parametrize(
    "labels",
    [
        "0: sky, 1: red car",
        ["0: sky", "1:red car"],
        {0: "sky", 1: "red car"},
        {"1": "red car", "0": "sky"},
        ("0 = sky", "1\tred car"),
        "0) sky\n1) red car",
    ],
    ids=str,
)
def test_a_number_before_a_name_is_its_place_and_no_part_of_it(labels):
    assert Vocabulary.parse(labels).names == ["sky", "red car"]


def test_numbers_in_files_are_places(tmp_path):
    for name, content in (
        ("words.txt", "# YOLO's\n0: sky [stuff]\n\n1: car, automobile\n"), ("words.json", '{"0": "sky", "1": "car"}'),
    ):  # fmt: skip
        (tmp_path / name).write_text(content)
        assert Vocabulary.from_file(tmp_path / name).names == ["sky", "car"]
    (tmp_path / "words.txt").write_text("1: sky\n2: car\n")
    with pytest.raises(ValueError, match=r'words.txt: "1: sky", "2: car": a class.s number is its place'):
        Vocabulary.from_file(tmp_path / "words.txt")


@pytest.mark.parametrize(
    "labels", ["1: sky, 2: dog", "0: sky, dog", {0: "sky", 255: "dog"}, "0: a, 2: b", "1. sky\n2. dog"], ids=str
)
def test_other_numbers_are_refused(labels):
    with pytest.raises(ValueError, match="Leave the numbers out"):
        Vocabulary.parse(labels)


def test_numbers_that_are_names_stay():
    names = ["16:9 screen", "7", "3 apples", "route 66", "1. Bundesliga"]
    assert Vocabulary.parse(names).names == names and Vocabulary.parse("16:9 screen").names == names[:1]
    assert Vocabulary.parse({"7": ["seven"]}).prompts() == ["7", "seven"]


def test_full_stops_in_names():
    assert Vocabulary.parse("St. Bernard, dog").names == ["St. Bernard", "dog"]
    assert Vocabulary.parse(["St. Bernard", "No. 5."]).names == ["St. Bernard", "No. 5."]
    assert Vocabulary.parse("size 3.5").names == ["size 3.5"]
    with pytest.raises(ValueError, match="one name or several"):
        Vocabulary.parse("bird. fish")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),  # composed and decomposed
        ("fish", "\ufb01sh"),  # a ligature
        ("dog", "d\u200bog"),  # a zero-width space
        ("dog", "\ufeffdog"),
        ("red car", "red\u00a0car"),
    ],
)
def test_names_that_look_the_same_are_refused_with_their_spellings(one, other):
    for labels in ([one, other], {"thing": [one, other]}, {one: [], "thing": [other]}):
        with pytest.raises(ValueError, match="occur twice") as error:
            Vocabulary.parse(labels)
        if other != "red\u00a0car":  # white space is tidied before names are compared
            assert ascii(one) in str(error.value) and ascii(other) in str(error.value)


def test_a_name_that_nobody_sees_is_empty():
    with pytest.raises(ValueError, match="empty name"):
        Vocabulary.parse(["dog", "\u200b"])
    with pytest.raises(ValueError, match="empty name"):
        Vocabulary.parse("\ufeff")


def test_prompts_come_class_by_class_with_the_name_first():
    vocabulary = Vocabulary.parse({"dog": ["puppy", "hound"], "sky": [], "car": ["automobile"]})
    assert vocabulary.names == ["dog", "sky", "car"]
    assert vocabulary.prompts() == ["dog", "puppy", "hound", "sky", "car", "automobile"]
    assert vocabulary.prompt_class_ids == [0, 0, 0, 1, 2, 2]
    assert vocabulary.is_thing == [True, False, True]


def test_is_an_immutable_sequence():
    vocabulary = Vocabulary([DOG, CURTAIN])
    assert (
        len(vocabulary) == 2 and vocabulary[1] == CURTAIN and list(vocabulary) == [DOG, CURTAIN] and DOG in vocabulary
    )
    assert vocabulary == Vocabulary([DOG, CURTAIN]) != Vocabulary([CURTAIN, DOG])
    assert hash(vocabulary) == hash(Vocabulary([DOG, CURTAIN]))
    assert Vocabulary.parse(vocabulary) is vocabulary
    with pytest.raises(TypeError):
        vocabulary[0] = CURTAIN


def test_round_trips_through_json():
    vocabulary = Vocabulary.parse([DOG, CURTAIN, "sky", "Ampel (rot)", "赤い車"])
    again = Vocabulary.parse(json.loads(json.dumps(vocabulary.to_config())))
    assert again == vocabulary and again.kinds == vocabulary.kinds
    assert vocabulary.to_config()[0] == {
        "name": "dog",
        "synonyms": ["puppy"],
        "is_thing": True,
        "kind_is_known": True,
    }


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ("dog", -1),
        ("dog [thing]", 1),
        ("curtain [stuff]", 0),
        ("sky", 0),
        (Class("sky", is_thing=True), 1),
        (Class("dog", is_thing=True, kind_is_known=False), -1),
        ({"name": "dog"}, -1),
        ({"name": "dog", "isthing": 1}, 1),
        ({"name": "dog", "is_thing": True, "kind_is_known": False}, -1),
    ],
    ids=str,
)
def test_a_kind_is_known_where_it_is_stated_or_the_name_is_a_stuff_word(item, kind):
    assert Vocabulary.parse([item]).kinds == [kind]


@pytest.mark.parametrize(
    "name", ["sky", "Grass", "brick wall", "wall-brick", "tree-merged", "wet_sand", "field of wheat"]
)
def test_common_stuff_is_stuff(name):
    assert not Class(name).is_thing and Class(name, is_thing=True).is_thing


@pytest.mark.parametrize(
    "name", ["dog", "wall clock", "sea lion", "glass of water", "sandcastle", "street light", "T-shirt"]
)
def test_all_else_is_a_thing(name):
    assert Class(name).is_thing and not Class(name, is_thing=False).is_thing


def test_white_space_in_names_is_tidied():
    assert Class("  red \n car ", [" fire  truck"]) == Class("red car", ("fire truck",))


@pytest.mark.parametrize(
    ("labels", "quotes"),
    [
        ("", ["empty"]),
        ([], ["empty"]),
        ({}, ["empty"]),
        ("dog,,cat", ['"dog"', '""']),
        ("dog, ", ['"dog"', '""']),
        (["", "dog"], ['""', "start"]),
        ({"dog": ["puppy", " "]}, ['"dog"', '"puppy"', '""']),
        ("dog, cat, Dog", ['"Dog"', '"dog"']),
        ({"dog": ["hound"], "cat": ["HOUND"]}, ['"HOUND"', '"cat"', '"dog"']),
        ({"dog": ["Dog"]}, ['"Dog"']),
        ({"dog": [], "puppy": ["dog"]}, ['"dog"', '"puppy"']),
        ("straße, STRASSE", ['"STRASSE"', '"straße"']),
        ("sky [stuf]", ["sky [stuf]", "[stuff]"]),
        ("sky [stuff] [thing]", ['"sky [stuff]"', "once"]),
        (["[stuff] sky"], ['"[stuff] sky"', "behind"]),
        (["the [Stuff ] sky"], ['"the [Stuff ] sky"', "behind"]),
        ({"sky": ["clouds [stuff]"]}, ['"clouds [stuff]"', "behind"]),
        ("words.csv", ["words.csv", "file", '["words.csv"]']),
        (" my words.txt ", ["my words.txt", "`Vocabulary.from_file`"]),
        ("./words", ["file"]),
        ("C:\\words", ["file"]),
    ],
)
def test_refuses_what_cannot_be_told_apart_or_has_no_name(labels, quotes):
    with pytest.raises(ValueError) as error:
        Vocabulary.parse(labels)
    assert all(quote in str(error.value) for quote in quotes), str(error.value)


def test_quotes_a_handful_of_many_duplicates():
    names = [f"name {index}" for index in range(1000)]
    with pytest.raises(ValueError, match="and 995 more") as error:
        Vocabulary.parse(names + names)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("labels", "quote"),
    [
        (3, "int: 3"),
        ({"dog", "cat"}, "set"),
        ([3], "3 (int)"),
        ({0: ["dog"]}, "0 (int)"),
        ({"dog": "puppy"}, "'puppy'"),
        ({"dog": [3]}, "3 (int)"),
        ([{"title": "dog"}], "'title'"),
        ([{"name": "dog", "is_thing": "false"}], "'false'"),
    ],
)
def test_refuses_what_are_no_labels(labels, quote):
    with pytest.raises(TypeError) as error:
        Vocabulary.parse(labels)
    assert quote in str(error.value)


def test_reads_a_text_file(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text(
        "\ufeff# what lives here\ndog, puppy, hound\n\ncurtain, drape [stuff]   # not a thing\nC#\n", encoding="utf-8"
    )
    assert Vocabulary.from_file(path) == Vocabulary(
        [Class("dog", ("puppy", "hound")), Class("curtain", ("drape",), False), Class("C#")]
    )


@pytest.mark.parametrize(
    "content",
    [
        ["dog", {"name": "sky", "is_thing": False}],
        {"dog": [], "sky": []},
        [{"id": 7, "name": "dog", "isthing": 1}, {"id": 9, "name": "sky", "isthing": 0, "supercategory": "outdoor"}],
        {"images": [], "categories": [{"id": 7, "name": "dog", "isthing": 1}, {"id": 9, "name": "sky", "isthing": 0}]},
        {"names": ["dog", "sky"]},
        {"names": {"1": "sky", "0": "dog"}, "train": "images", "nc": 2},
        {"model_type": "mask2former", "id2label": {"0": "dog", "1": "sky"}, "label2id": {"dog": 0, "sky": 1}},
        {"classes": {"dog": [], "sky": []}},
        {"labels": "dog, sky"},
    ],
    ids=str,
)
def test_reads_a_json_file(tmp_path, content):
    path = tmp_path / "labels.JSON"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert Vocabulary.from_file(str(path)) == Vocabulary.parse("dog, sky")


@pytest.mark.parametrize(
    ("name", "content", "quote"),
    [
        ("labels.txt", "dog\ncat\ndog\n", '"dog"'),
        ("labels.txt", "# nothing\n", "empty"),
        ("labels.txt", "dog,,puppy\n", '""'),
        ("labels.json", "{", "Expecting"),
        ("labels.json", "3", "int: 3"),
        ("labels.json", '{"dog": ["puppy"], "sky": [], "dog": ["hound"]}', '"dog" comes twice'),
        ("labels.json", '{"id2label": {"0": "dog", "1": "sky", "1": "sea"}}', '"1" comes twice'),
        ("labels.json", '[{"name": "dog", "name": "sky"}]', '"name" comes twice'),
        ("labels.json", '{"names": []}', "empty"),
        ("labels.json", '{"names": ["dog"], "colors": ["red"]}', '"names" may be the list of the classes, or a class'),
        ("labels.json", '{"images": [], "annotations": [], "categories": []}', '"categories" may be the list'),
        ("labels.json", '{"dog": {"synonyms": ["puppy"]}}', "synonyms of 'dog' must be a list"),
        ("labels.csv", "dog\n", "'.csv'"),
    ],
)
def test_names_the_file_that_it_refuses(tmp_path, name, content, quote):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError) as error:
        Vocabulary.from_file(path)
    assert str(path) in str(error.value) and quote in str(error.value)


def test_a_file_that_is_not_there_is_named_with_what_to_do(tmp_path):
    (tmp_path / "folder.txt").mkdir()
    for name, found in (("missing.txt", "no such file"), ("folder.txt", "that is a folder")):
        with pytest.raises(FileNotFoundError) as error:
            Vocabulary.from_file(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: {found}. Name a .txt or .json file")


@pytest.mark.parametrize("name", ["TV/monitor", "St. Bernard", "U.S.", "3.5 mm jack", "C++"])
def test_words_with_stops_and_slashes_are_no_files(name):
    assert Vocabulary.parse(f"{name}, dog").names == [name, "dog"]
    assert not is_file_name(name)
    assert Vocabulary.parse(["words.csv", "a.csv [thing]"]).names == ["words.csv", "a.csv"]


def test_a_hundred_thousand_names_take_about_a_second():
    names = [f"class number {index}" for index in range(100_000)]
    start = time.process_time()
    vocabulary = Vocabulary.parse(names)
    prompts, class_ids = vocabulary.prompts(), vocabulary.prompt_class_ids
    assert time.process_time() - start < 4  # quadratic work would take minutes
    assert prompts == names and class_ids == list(range(100_000))


def test_templates_by_name_alone_or_in_a_list():
    assert resolve_templates("default") == ("a photo of a {}",)
    assert resolve_templates("scene") == PROMPT_TEMPLATES["scene"] and len(PROMPT_TEMPLATES["scene"]) >= 10
    assert resolve_templates("my {}") == ("my {}",)
    assert resolve_templates(["{}", "my {}"]) == ("{}", "my {}")


def test_the_shipped_templates_are_distinct_and_have_one_place_for_the_name():
    for templates in PROMPT_TEMPLATES.values():
        assert len(set(templates)) == len(templates)
        assert all(template.count("{}") == 1 for template in templates)


@pytest.mark.parametrize("templates", ["scenes", "a photo", ["a {}", "a photo"], [""], [], [3]])
def test_refuses_templates_without_a_place_for_the_name(templates):
    wrong = templates if isinstance(templates, str) else (templates or ["empty list"])[-1]
    with pytest.raises(ValueError) as error:
        resolve_templates(templates)
    assert str(wrong) in str(error.value) and '"scene"' in str(error.value)


def test_half_a_surrogate_pair_is_no_name():
    with pytest.raises(ValueError, match="ud800.*surrogate pair"):
        Vocabulary.parse(["dog", "cat\ud800"])


@pytest.mark.parametrize("name", ["do\x01g", "dog\x00", "\x1b[31mdog", "do\uffffg"])
def test_control_characters_are_in_no_name(name):
    with pytest.raises(ValueError, match="holds the character '.*'. Remove it"):
        Vocabulary.parse([name, "cat"])
    with pytest.raises(ValueError, match="Remove it"):
        Class("cat", synonyms=[name])
    assert Vocabulary.parse(["\tred\x0ccar\r"]).names == ["red car"]  # these are blanks


@pytest.mark.parametrize("item", ["dog, cat", "dog; cat", "dog\ncat"])
def test_an_item_that_reads_like_several_is_one_class_and_said(item):
    with pytest.warns(UserWarning, match="is one class"):
        assert len(Vocabulary.parse([item, "grass"])) == 2
    with raising_on_any_warning():
        assert len(Vocabulary.parse([Class(item), "grass"])) == 2
        assert len(Vocabulary.parse(item)) == 2


def test_a_file_of_one_line_is_said_to_be_one_class(tmp_path, recwarn):
    path = tmp_path / "words.txt"
    for text in ("dog\n", "dog, puppy\nsky\n"):
        path.write_text(text)
        Vocabulary.from_file(path)
    assert not recwarn.list
    path.write_text("dog, grass, sky [stuff]\n")
    with pytest.warns(
        UserWarning, match='one line, so one class: all that is found is called \'dog\', and "grass", "sky"'
    ):
        assert Vocabulary.from_file(path).names == ["dog"]


def test_a_line_that_reads_like_several_names_is_said_to_be_one(tmp_path):
    (tmp_path / "words.txt").write_text("dog; cat\nsky\n")
    with pytest.warns(UserWarning, match='"dog; cat" is one class, although it reads like several'):
        assert len(Vocabulary.from_file(tmp_path / "words.txt")) == 2
