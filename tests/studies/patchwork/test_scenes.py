"""The painter's promises: ground truth that is the picture's, determinism, words kept apart. With drawn stand-ins for
the pictograms, which are not in the repository."""

import numpy as np
import pytest
from PIL import Image

from fisa.studies.patchwork.glyphs import ARTISTS, icon_names, load_glyphs, rendered
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
        assert scene.image.shape == (192, 192, 3) and scene.label.shape == (192, 192)
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
        whole = np.pi * (30 / 64 * 0.3 * 192) ** 2
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


def test_a_restyled_thing_is_masked_where_it_was_painted(glyphs):
    """Stretched, slanted or outlined, what differs from the scene without it is the thing and its shadow."""
    kind = SceneKind(num_objects=(1, 1), restyled=True)
    areas = set()
    for number in range(10):
        scene = painter(glyphs).paint(kind, number)
        bare = painter(glyphs).paint(SceneKind(num_objects=(0, 0)), number)
        (thing,) = [info for info in scene.segments_info if CATEGORIES[info["category_id"] - 1].isthing]
        mask = scene.label == thing["id"]
        assert np.array_equal(scene.label[~mask], bare.label[~mask])
        areas.add(int(mask.sum()))
    assert len(areas) == 10


def test_a_scene_has_the_same_in_it_at_any_size(glyphs):
    kind = SceneKind(side=96, num_objects=(0, 0))
    for number in range(5):
        small, large = (painter(glyphs).paint(k, number) for k in (kind, SceneKind(num_objects=(0, 0))))
        assert small.segments_info == large.segments_info
        assert (large.label[::2, ::2] == small.label).mean() > 0.97
        reduced = np.asarray(Image.fromarray(large.image).reduce(2), float)
        grey = [
            np.asarray(Image.fromarray(np.uint8(i)).convert("L").resize((12, 12), Image.BOX), float)
            for i in (reduced, small.image)
        ]
        assert np.corrcoef(grey[0].ravel(), grey[1].ravel())[0, 1] > 0.9


def test_words_that_an_artist_did_not_draw_are_left_out(glyphs, tmp_path):
    drawings = load_glyphs("noto", folder=glyphs)
    drawings[5:, ..., 3] = 0
    np.save(tmp_path / "noto.npy", drawings)
    few = painter(tmp_path)
    found = {index for number in range(20) for index in few.paint(SceneKind(), number).class_indices}
    assert {index for index in found if index < len(THINGS)} == set(range(5))


def test_an_icon_is_rendered_whole_whatever_its_shape():
    """An icon twice as wide as high keeps its proportions, in the middle of a square."""
    body = '<path fill="red" d="M0 0h20v10H0z"/>'
    icons = {"icons": {"wide": {"body": body, "width": 20, "height": 10}}, "aliases": {"broad": {"parent": "wide"}}}
    drawing = rendered(icons, "wide")
    assert drawing.shape == (192, 192, 4) and np.array_equal(drawing, rendered(icons, "broad"))
    solid = drawing[..., 3] > 127
    assert solid[48:144].all() and not solid[:48].any() and not solid[144:].any()
    assert drawing[96, 96].tolist() == [255, 0, 0, 255]
    assert not rendered(icons, "").any()


def test_every_word_is_drawn_by_the_artists_of_the_splits():
    for artist in ("noto", "twemoji", "fluent", "openmoji"):
        assert all(icon_names(artist))
    assert all(sum(map(bool, icon_names(artist))) > 100 for artist in ARTISTS)


@pytest.mark.parametrize("artist", HANDS)
def test_textures_differ_from_each_other_and_from_themselves(artist):
    def pieces(seed):
        return {name: texture(name, np.random.default_rng(seed), artist=artist) for name in TEXTURES}

    one, other = pieces(0), pieces(1)
    assert all(piece.shape == (128, 128, 3) and piece.dtype == np.uint8 for piece in one.values())
    assert all(not np.array_equal(one[name], other[name]) for name in TEXTURES)


@pytest.mark.parametrize("name", TEXTURES)
def test_a_texture_of_more_detail_is_the_same_texture(name):
    fine, coarse = (texture(name, np.random.default_rng(0), artist="noto", detail=detail) for detail in (2, 1))
    assert fine.shape == (256, 256, 3)
    colours = [np.asarray(Image.fromarray(piece).resize((4, 4), Image.BOX), float) for piece in (fine, coarse)]
    assert np.abs(colours[0] - colours[1]).max() < 12


def test_missing_pictograms_are_answered_with_the_command_that_brings_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m fisa.studies.patchwork.glyphs"):
        load_glyphs("noto", folder=tmp_path)
