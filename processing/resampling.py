"""Bilinear interpolation decided for many pixels at once: pixels between the same four grid points are weighted means
of these points. Whole cells are therefore decided by their corners, and only undecided cells pixel by pixel."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F


# Tiles of this many pixels per side are small enough to have few candidates, and large enough for PyTorch's overhead.
PIXELS_PER_TILE_SIDE = 256
# How many numbers the points of a tile hold: 16 MiB, unless there are fewer pixels than points.
NUMBERS_PER_TILE = 2**22
# How many numbers are interpolated at a time: 1 MiB, about the cache of a processor core.
NUMBERS_AT_A_TIME = 2**18
# PyTorch's CPU reductions are several times faster on rows whose length is a multiple of this.
COLUMNS = 32


class Span(NamedTuple):
    """A tile's rows (or columns) of pixels, in runs of up to n that lie between the same two rows of the grid.

    Indices count from the start of the tile.
    """

    reach: slice  # from the first to the last row of the grid that the tile needs
    points: torch.Tensor  # (P,) the needed rows within `reach`
    before: torch.Tensor  # (R,) the index in `points` of the row before each run
    after: torch.Tensor  # (R,) the index of the row after it
    counts: torch.Tensor  # (R,) float32, pixels in each run
    run_of_pixel: torch.Tensor  # (L,) the run of each pixel
    pixels: torch.Tensor  # (R, n) the pixels of each run; a run of fewer than n repeats its last
    weights: torch.Tensor  # (R, n, 2) float32, the weights of the rows before and after
    pixel_slice: slice  # the tile's pixels in the photo


def tiles(
    grid: tuple[int, int], size: tuple[int, int], *, columns: int, device: torch.device
) -> Iterator[tuple[Span, Span]]:
    """The rows and columns of tiles that cover a photo.

    Args:
        grid: height and width of the masks.
        size: height and width of the photo.
        columns: how many numbers each grid point holds; more numbers make smaller tiles.
        device: the device of the spans' tensors.
    """
    longest = max(1, math.isqrt(NUMBERS_PER_TILE // max(1, columns)))
    rows, across = (_spans(*lengths, longest=longest, device=device) for lengths in zip(grid, size))
    return ((row, column) for row in rows for column in across)


def _spans(length: int, target_length: int, *, longest: int, device: torch.device) -> list[Span]:
    """Spans with the pixel positions of `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`."""
    pixels = torch.arange(target_length)
    positions = ((pixels.float() + 0.5) * (length / target_length) - 0.5).clamp(min=0)
    before = positions.long().clamp(max=length - 1)
    run_limit = min(math.ceil(target_length / length), PIXELS_PER_TILE_SIDE // 16)
    starts = before.diff(prepend=before.new_tensor([-1])) > 0
    since_start = pixels - torch.where(starts, pixels, 0).cummax(0).values
    firsts = (since_start % run_limit == 0).nonzero().flatten()
    ends = torch.cat([firsts[1:], pixels.new_tensor([target_length])])
    run_pixels = torch.minimum(firsts[:, None] + torch.arange(run_limit), ends[:, None] - 1)
    share = (positions - before)[run_pixels]
    before = before[firsts]
    # Pixels exactly on a row do not depend on the next one.
    after = torch.where((share == 0).all(1), before, (before + 1).clamp(max=length - 1))
    spans = []
    num_spans = max(1, round(len(firsts) / min(longest, PIXELS_PER_TILE_SIDE // run_limit)))
    for runs in torch.arange(len(firsts)).tensor_split(num_spans):
        points, (first, second) = torch.stack([before[runs], after[runs]]).unique(return_inverse=True)
        start, stop = firsts[runs[0]].item(), ends[runs[-1]].item()
        counts = ends[runs] - firsts[runs]
        tensors = {
            "points": points - points[0],
            "before": first,
            "after": second,
            "counts": counts.float(),
            "run_of_pixel": torch.arange(len(runs)).repeat_interleave(counts),
            "pixels": run_pixels[runs] - start,
            "weights": torch.stack([1 - share[runs], share[runs]], -1),
        }
        tensors = {name: value.to(device) for name, value in tensors.items()}
        reach = slice(points[0].item(), points[-1].item() + 1)
        spans.append(Span(reach=reach, pixel_slice=slice(start, stop), **tensors))
    return spans


def at_points(mask_logits: torch.Tensor, proposals: torch.Tensor, rows: Span, columns: Span) -> torch.Tensor:
    """The mask probabilities at a tile's points: (Q, h, w) logits and (K,) proposals → (K, P, P') float32."""
    reach = mask_logits[:, rows.reach, columns.reach].index_select(0, proposals)
    return reach.index_select(1, rows.points).index_select(2, columns.points).float().sigmoid()


def areas(inside: torch.Tensor, rows: Span, columns: Span) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds of how many of a tile's pixels are inside each mask: (K, P, P') bool → least (K,) and most (K,)."""
    corners = _corners(inside, rows, columns)
    counts = rows.counts[:, None] * columns.counts
    surely = corners[0] & corners[1] & corners[2] & corners[3]
    maybe = corners[0] | corners[1] | corners[2] | corners[3]
    least, most = ((cells * counts).sum((1, 2)).long() for cells in (surely, maybe))
    return least, most


def _corners(points: torch.Tensor, rows: Span, columns: Span) -> list[torch.Tensor]:
    """The values (..., P, P') of a tile's points at the four corners of each cell: four tensors (..., R, R')."""
    return [
        across.index_select(-1, column)
        for across in (points.index_select(-2, row) for row in (rows.before, rows.after))
        for column in (columns.before, columns.after)
    ]


def label_pixels(
    values: torch.Tensor, rows: Span, columns: Span, label: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Label the pixels of a tile by their interpolated values.

    Args:
        values: (P * P', N) float32, at the points of the tile.
        rows, columns: the tile.
        label: (n, N) values → (n,) labels. Weighted means of points with one label must have that label too.

    Returns:
        (L, L') labels.
    """
    width = len(columns.points)
    at_corners = _corners(label(values).view(-1, width), rows, columns)
    agree = (at_corners[0] == at_corners[1]) & (at_corners[0] == at_corners[2]) & (at_corners[0] == at_corners[3])
    labels = at_corners[0].index_select(0, rows.run_of_pixel).index_select(1, columns.run_of_pixel)
    height, across = rows.pixels.shape[1], columns.pixels.shape[1]
    pixels = height * across
    # Repeated for each pixel and corner of a cell in advance: gathering and multiplying long rows is faster.
    row_weights = rows.weights[:, :, None, :, None].expand(-1, -1, across, -1, 2).reshape(-1, 4 * pixels)
    column_weights = columns.weights[:, None, :, None, :].expand(-1, height, -1, 2, -1).reshape(-1, 4 * pixels)
    at_a_time = max(1, NUMBERS_AT_A_TIME // (pixels * values.shape[1]))
    for cells in (~agree).nonzero().split(at_a_time):
        row, column = cells.T
        corners = [
            first[row] * width + second[column]
            for first in (rows.before, rows.after)
            for second in (columns.before, columns.after)
        ]
        sources = torch.stack(corners, 1)[:, None].expand(-1, pixels, -1)
        weights = row_weights.index_select(0, row) * column_weights.index_select(0, column)
        # Gathers and averages the four corners of each pixel in one pass.
        mixed = F.embedding_bag(sources.reshape(-1, 4), values, per_sample_weights=weights.view(-1, 4), mode="sum")
        where = rows.pixels[row][:, :, None], columns.pixels[column][:, None, :]
        labels[where] = label(mixed).view(-1, height, across)
    return labels


def first_largest(values: torch.Tensor) -> torch.Tensor:
    """The first column with the largest value of each row: (N, C) → (N,) int64.

    Several times faster than `max` or `argmax`, whose search for the index is not vectorised on a CPU.
    """
    num_columns = values.shape[1]
    ranks = torch.arange(num_columns, 0, -1, dtype=values.dtype, device=values.device)
    # In place, comparisons give numbers and no booleans, which is also faster.
    is_largest = (values - values.amax(-1, keepdim=True)).eq_(0)
    # The clamp is for rows with a NaN, in which no column equals the largest.
    return num_columns - is_largest.mul_(ranks).amax(-1).long().clamp(min=1)


def padded(indices: torch.Tensor, filler: int) -> torch.Tensor:
    """Append `filler` up to a length that is fast to reduce: (N,) → (N',)."""
    return F.pad(indices, (0, -len(indices) % COLUMNS), value=filler)
