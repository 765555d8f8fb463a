"""Changes to a training photo: photo and masks go together, and what is drawn depends on the numbers alone."""

import numpy as np
import pytest
from PIL import Image

from fisa.data.augmentation import Augmentation, PhotoChange


def ramp(height=20, width=30):
    """A photo each of whose pixels tells where it was."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8))


def random_state(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.2, 0.1, 0.7, 0.6), (0.5, 0.5, 0.501, 0.501)])
def test_masks_move_with_the_photo(box, flipped):
    change = PhotoChange(flipped=flipped, box=box)
    photo = np.asarray(change.photo(ramp()))
    pixels = np.asarray(ramp())
    # One mask for each bit of each pixel's place: together they say where each pixel came from.
    masks = np.stack([(pixels[..., axis] >> bit) & 1 for axis in (0, 1) for bit in range(5)]).astype(bool)
    moved = change.masks(masks)
    assert moved.shape[1:] == photo.shape[:2]
    for axis in (0, 1):
        place = sum(moved[5 * axis + bit].astype(int) << bit for bit in range(5))
        np.testing.assert_array_equal(place, photo[..., axis])


def test_no_change_changes_nothing():
    assert PhotoChange().photo(ramp()).tobytes() == ramp().tobytes()


def test_without_augmentation_nothing_is_changed():
    for seed in range(20):
        assert Augmentation().draw(random_state(seed)).photo(ramp()).tobytes() == ramp().tobytes()


def test_half_of_the_photos_are_mirrored():
    flipped = [Augmentation(flip=True).draw(random_state(seed)).flipped for seed in range(400)]
    assert 160 < sum(flipped) < 240


def test_crops_keep_at_least_their_share_and_the_shape():
    for seed in range(50):
        left, top, right, bottom = Augmentation(crop=0.3).draw(random_state(seed)).box
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
        assert (right - left) * (bottom - top) >= 0.3 - 1e-9
        assert right - left == pytest.approx(bottom - top)


def test_one_kind_of_change_does_not_depend_on_the_others():
    plain = Augmentation(flip=True).draw(random_state(3))
    rich = Augmentation(flip=True, crop=0.5, color=0.4).draw(random_state(3))
    assert plain.flipped == rich.flipped


def test_colours_change_by_the_given_strength_and_masks_do_not():
    photo = Image.fromarray(np.full((8, 8, 3), (200, 100, 50), np.uint8))
    changed = [Augmentation(color=0.4).draw(random_state(seed)).photo(photo) for seed in range(20)]
    assert len({image.tobytes() for image in changed}) == 20
    factors = [Augmentation(color=0.4).draw(random_state(seed)).color_factors for seed in range(50)]
    assert 0.6 <= min(map(min, factors)) < 0.7 and 1.3 < max(map(max, factors)) <= 1.4


def test_a_turn_of_the_hue_by_a_third_makes_red_green():
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    red_, green, blue = PhotoChange(hue_shift=1 / 3).photo(red).getpixel((0, 0))
    assert green > 250 and red_ < 10 and blue < 10


@pytest.mark.parametrize("options, named", [({"crop": 0.0}, "crop"), ({"crop": 1.5}, "crop"), ({"color": 2}, "color")])
def test_shares_out_of_range_are_refused(options, named):
    with pytest.raises(ValueError, match=f"`{named}` was {next(iter(options.values()))}"):
        Augmentation(**options)
