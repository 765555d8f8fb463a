"""Which proposal each pixel goes to, tile by tile, so that memory does not grow with the number of proposals."""

import torch
import torch.nn.functional as F

from fisa.processing.resampling import areas, at_points, first_largest, label_pixels, padded, tiles


def strongest_claims(
    mask_logits: torch.Tensor,
    proposals: torch.Tensor,
    scores: torch.Tensor,
    size: tuple[int, int],
    *,
    mask_threshold: float,
    weighted: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give each pixel to the proposal with the highest score × mask probability there, of equal ones to the first.

    Args:
        mask_logits: (Q, h, w).
        proposals: (K,) int64, those that compete.
        scores: (K,) float32.
        size: height and width of the photo.
        mask_threshold: the mask probability from which on a pixel is inside.
        weighted: areas are those of the masks weighted by the scores, and each pixel counts as inside its winner.

    Returns:
        (H, W) int32, twice the winner's place among the proposals, and one more where the pixel is inside its mask;
        how many pixels each mask has at least, (K,) int64; and at most, (K,) int64.
    """
    codes = torch.zeros(size, dtype=torch.int32, device=mask_logits.device)
    least, most = torch.zeros_like(proposals), torch.zeros_like(proposals)
    grid = mask_logits.shape[-2], mask_logits.shape[-1]
    for rows, columns in tiles(grid, size, columns=len(proposals), device=mask_logits.device):
        probs = at_points(mask_logits, proposals, rows, columns)
        claims = probs * scores[:, None, None]
        areas_of = claims if weighted else probs
        highest, lowest = claims.flatten(1).amax(1), claims.flatten(1).amin(1)

        present = (areas_of.flatten(1).amax(1) >= mask_threshold).nonzero().flatten()
        inside = areas_of.index_select(0, present) >= mask_threshold
        for bound, area in zip((least, most), areas(inside, rows, columns)):
            bound.index_add_(0, present, area)

        able = (~(highest < lowest.max())).nonzero().flatten()
        rivals = padded(able, 0)
        weights = F.pad(scores[able], (0, len(rivals) - len(able)))  # those that fill up come last and never win

        def code(probs: torch.Tensor, weights: torch.Tensor = weights) -> torch.Tensor:
            winner = first_largest(probs * weights)
            if weighted:
                return 2 * winner + 1
            return 2 * winner + (probs.gather(1, winner[:, None])[:, 0] >= mask_threshold)

        values = probs.index_select(0, rivals).flatten(1).T.contiguous()
        labels = label_pixels(values, rows, columns, code)
        code_of = torch.stack([2 * able, 2 * able + 1], 1).flatten()
        codes[rows.pixel_slice, columns.pixel_slice] = code_of[labels]
    return codes, least, most


def first_inside(
    mask_logits: torch.Tensor, proposals: torch.Tensor, size: tuple[int, int], *, mask_threshold: float
) -> torch.Tensor:
    """Give each pixel to the first proposal whose mask contains it.

    Args:
        mask_logits, proposals, size, mask_threshold: as for `strongest_claims`.

    Returns:
        (H, W) int32, the winner's place among the K proposals, or K where there is none.
    """
    winners = torch.zeros(size, dtype=torch.int32, device=mask_logits.device)
    grid = mask_logits.shape[-2], mask_logits.shape[-1]
    for rows, columns in tiles(grid, size, columns=len(proposals), device=mask_logits.device):
        probs = at_points(mask_logits, proposals, rows, columns).flatten(1)
        present = (probs.amax(1) >= mask_threshold).nonzero().flatten()
        candidates = padded(F.pad(present, (0, 1), value=len(proposals)), len(proposals))
        # Those that stand for none come last, and every pixel is inside them.
        of_none = (0, 0, 0, len(candidates) - len(present))
        values = F.pad(probs.index_select(0, present), of_none, value=2).T.contiguous()
        labels = label_pixels(values, rows, columns, lambda probs: first_largest(probs.clone().ge_(mask_threshold)))
        winners[rows.pixel_slice, columns.pixel_slice] = candidates[labels]
    return winners
