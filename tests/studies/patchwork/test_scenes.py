"""The painter's promises: ground truth that is the picture's, determinism, words kept apart. With drawn stand-ins for
the pictograms, which are not in the repository."""

import numpy as np
import pytest

from fisa.studies.patchwork.glyphs import ARTISTS, load_glyphs
from fisa.studies.patchwork.scenes import LEAST_VISIBLE, Painter, SceneKind
from fisa.studies.patchwork.textures import HANDS, TEXTURES, texture
from fisa.studies.patchwork.words import CATEGORIES, SEEN, STUFF, THINGS, WORDS, vocabulary


def painter(glyphs, **options):
    return Painter("noto", **{"seed": 1, "glyph_folder": glyphs} | options)


def test_the_words():
    assert len(THINGS) >= 200 and len(STUFF) >= 12
    names = [name for word in WORDS for name in (word.name, *word.synonyms)]
    assert len(names) == len({name.casefold() for name in names})
    for words in (THINGS, STUFF):
        assert sum(word.is_seen for word in words) / len(words) == pytest.approx(0.6, abs=0.01)
    assert set(TEXTURES) == {word.name for word in STUFF} and set(HANDS) == set(ARTISTS)
    assert vocabulary().names == [category.name for category in CATEGORIES]


def test_every_pixel_belongs_to_one_listed_segment(glyphs):
    for number in range(20):
        scene = painter(glyphs).paint(SceneKind(), number)
        assert scene.image.shape == (96, 96, 3) and scene.label.shape == (96, 96)
        assert set(np.unique(scene.label)) == {info["id"] for info in scene.segments_info}
        stuff = [i["category_id"] for i in scene.segments_info if not CATEGORIES[i["category_id"] - 1].isthing]
        assert len(stuff) == len(set(stuff)) >= 1  # pieces of one kind are one segment


def test_the_same_number_is_the_same_scene_and_another_another(glyphs):
    one, same = (painter(glyphs).paint(SceneKind(), 7) for _ in range(2))
    assert np.array_equal(one.image, same.image) and np.array_equal(one.label, same.label)
    assert one.segments_info == same.segments_info
    for other in (painter(glyphs).paint(SceneKind(), 8), painter(glyphs, seed=2).paint(SceneKind(), 7)):
        assert not np.array_equal(one.image, other.image)


def test_a_thing_s_mask_is_where_it_was_painted(glyphs):
    """On an unlit scene without shadows a disc's pixels would be its colour; light and shadow change them a little."""
    kind = SceneKind(num_objects=(1, 1), object_size=(0.4, 0.5))
    for number in range(10):
        scene = painter(glyphs).paint(kind, number)
        (thing,) = [info for info in scene.segments_info if CATEGORIES[info["category_id"] - 1].isthing]
        colour = load_glyphs("noto", folder=glyphs)[thing["category_id"] - 1, 32, 32, :3]
        inside = scene.image[scene.label == thing["id"]].astype(float)
        assert np.median(np.abs(inside / inside.mean() - colour / colour.mean())) < 0.05


def test_no_thing_is_hidden_by_more_than_is_allowed(glyphs):
    kind = SceneKind(num_objects=(8, 8), object_size=(0.3, 0.3), rotation=0)
    for number in range(20):
        scene = painter(glyphs).paint(kind, number)
        things = [i for i in scene.segments_info if CATEGORIES[i["category_id"] - 1].isthing]
        whole = np.pi * (30 / 64 * 0.3 * 96) ** 2
        assert things and all((scene.label == i["id"]).sum() > LEAST_VISIBLE * whole * 0.5 for i in things)


def test_chosen_words_alone_are_used(glyphs):
    chosen = painter(glyphs, things=SEEN, stuff=SEEN)
    found = {WORDS[index].name for number in range(50) for index in chosen.paint(SceneKind(), number).class_indices}
    assert found <= SEEN and len(found) > 50


def test_recolouring_moves_colours_and_nothing_else(glyphs):
    plain = painter(glyphs, stuff=["grass"]).paint(SceneKind(num_objects=(1, 1)), 3)
    recoloured = painter(glyphs, stuff=["grass"]).paint(SceneKind(num_objects=(1, 1), recoloured=True), 3)
    assert not np.array_equal(plain.image, recoloured.image)
    assert {i["id"] for i in plain.segments_info} == {i["id"] for i in recoloured.segments_info}


@pytest.mark.parametrize("artist", HANDS)
def test_textures_differ_from_each_other_and_from_themselves(artist):
    def pieces(seed):
        return {name: texture(name, np.random.default_rng(seed), artist=artist) for name in TEXTURES}

    one, other = pieces(0), pieces(1)
    assert all(piece.shape == (128, 128, 3) and piece.dtype == np.uint8 for piece in one.values())
    assert all(not np.array_equal(one[name], other[name]) for name in TEXTURES)


def test_missing_pictograms_are_answered_with_the_command_that_brings_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m fisa.studies.patchwork.glyphs"):
        load_glyphs("noto", folder=tmp_path)
