"""Short cuts against interpolating everything, on masks and photos of ragged sizes."""

import math

import pytest
import torch
import torch.nn.functional as F

from fisa.processing.resampling import areas, at_points, first_largest, label_pixels, tiles
from fisa.processing.winners import exact_area, first_inside, strongest_claims


SIZES = [
    ((9, 12), (36, 48)),  # a quarter
    ((9, 12), (9, 12)),
    ((24, 31), (7, 90)),  # smaller one way, larger the other
    ((5, 7), (111, 303)),  # many pixels between two points, several tiles
    ((1, 1), (3, 200)),
    ((90, 70), (131, 69)),
    ((3, 150), (9, 451)),
]


def logits(grid, seed=0, queries=9):
    return 3 * torch.randn(queries, *grid, generator=torch.Generator().manual_seed(seed))


def resized(values, size):
    """In double precision, so that what differs is not the reference's rounding."""
    return F.interpolate(values.double()[None], size=size, mode="bilinear")[0]


@pytest.mark.parametrize(("grid", "size"), SIZES)
@pytest.mark.parametrize("columns", [1, 20_000])
def test_tiles_cover_each_pixel_once_and_interpolate_as_pytorch(grid, size, columns):
    masks = logits(grid)
    expected = resized(masks.sigmoid(), size)
    covered, least, most = torch.zeros(size), torch.zeros(9, dtype=torch.int64), torch.zeros(9, dtype=torch.int64)
    proposals = torch.arange(9)
    for rows, across in tiles(grid, size, columns=columns, device=masks.device):
        where = rows.pixel_slice, across.pixel_slice
        covered[where] += 1
        probs = at_points(masks, proposals, rows, across)
        for k in range(9):
            # A fine scale for labels: nearly all pixels are in doubt.
            values = probs[k].flatten()[:, None]
            labels = label_pixels(values, rows, across, lambda v: (v[:, 0] * 2**20).long())
            # Positions are single precision, as PyTorch's are for such masks.
            assert (labels / 2**20 - expected[k][where]).abs().max() < 2e-5
        for bound, area in zip((least, most), areas(probs >= 0.5, rows, across)):
            bound += area
    assert (covered == 1).all()
    exact = (expected >= 0.5).sum((1, 2))
    assert (least <= exact).all() and (exact <= most).all()
    assert grid != size or (torch.equal(least, exact) and torch.equal(most, exact))


@pytest.mark.parametrize(("grid", "size"), SIZES)
@pytest.mark.parametrize("weighted", [False, True])
def test_winners(grid, size, weighted):
    masks, proposals = logits(grid, seed=1), torch.tensor([7, 0, 3, 4])
    scores = torch.tensor([0.9, 0.6, 1.0, 0.3])
    codes, least, most = strongest_claims(masks, proposals, scores, size, mask_threshold=0.4, weighted=weighted)
    probs = resized(masks[proposals].sigmoid(), size)
    claims = probs * scores.double()[:, None, None]
    expected = claims.argmax(0)
    inside = torch.ones(size, dtype=torch.bool) if weighted else probs.gather(0, expected[None])[0] >= 0.4
    assert torch.equal(codes, (2 * expected + inside).int())
    area = ((claims if weighted else probs) >= 0.4).sum((1, 2))
    assert (least <= area).all() and (area <= most).all()

    for k, proposal in enumerate(proposals):
        weight = scores[k] if weighted else 1
        found_area = exact_area(masks, proposal, size, inside=lambda probs, weight=weight: probs * weight >= 0.4)
        assert abs(found_area - area[k]) <= 1  # a pixel may be on the edge

    found = first_inside(masks, proposals, size, mask_threshold=0.7)
    inside = torch.cat([probs >= 0.7, torch.ones(1, *size, dtype=torch.bool)])
    assert torch.equal(found, inside.int().argmax(0).int())


def test_equal_claims_go_to_the_first():
    masks = torch.full((4, 3, 3), 0.3)
    codes, *_ = strongest_claims(
        masks, torch.tensor([2, 0, 1]), torch.full((3,), 0.5), (8, 8), mask_threshold=0.5, weighted=False
    )
    assert (codes == 1).all()


def test_first_largest():
    values = torch.randint(0, 5, (200, 37), generator=torch.Generator().manual_seed(0)).float()
    assert first_largest(values).tolist() == [row.index(max(row)) for row in values.tolist()]
    assert first_largest(torch.tensor([[1.0, math.nan, 2.0]])).item() in range(3)
