"""The proposal that wins each pixel, tile by tile, so that memory does not grow with the number of proposals."""

from collections.abc import Callable

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
    """Give each pixel to the first proposal with the highest score × mask probability there.

    Args:
        mask_logits: (Q, h, w).
        proposals: (K,) int64, the indices of the competing proposals.
        scores: (K,) float32, the proposals' scores.
        size: height and width of the photo.
        mask_threshold: the lowest mask probability of a pixel inside the mask.
        weighted: whether the areas are those of the score-weighted masks, and each pixel counts as inside its winner.

    Returns:
        Codes (H, W) int32: twice the winner's index in `proposals`, plus one if the pixel is inside the winner's mask.
        Lower and upper bounds of the number of pixels in each mask, both (K,) int64.
    """
    codes = torch.zeros(size, dtype=torch.int32, device=mask_logits.device)
    least, most = torch.zeros_like(proposals), torch.zeros_like(proposals)
    grid = mask_logits.shape[-2], mask_logits.shape[-1]
    for rows, columns in tiles(grid, size, columns=len(proposals), device=mask_logits.device):
        probs = at_points(mask_logits, proposals, rows, columns)
        claims = probs * scores[:, None, None]
        area_masks = claims if weighted else probs
        highest, lowest = claims.flatten(1).amax(1), claims.flatten(1).amin(1)

        present = (area_masks.flatten(1).amax(1) >= mask_threshold).nonzero().flatten()
        inside = area_masks.index_select(0, present) >= mask_threshold
        for bound, area in zip((least, most), areas(inside, rows, columns)):
            bound.index_add_(0, present, area)

        contenders = (~(highest < lowest.max())).nonzero().flatten()
        rivals = padded(contenders, 0)
        # The padding comes last and never wins.
        weights = F.pad(scores[contenders], (0, len(rivals) - len(contenders)))

        outside = 2 * contenders.int()

        def code(
            probs: torch.Tensor, weights: torch.Tensor = weights, outside: torch.Tensor = outside
        ) -> torch.Tensor:
            winner = first_largest(probs * weights)
            inside = True if weighted else probs.gather(1, winner[:, None])[:, 0] >= mask_threshold
            return outside[winner] + inside

        values = probs.index_select(0, rivals).flatten(1).T.contiguous()
        codes[rows.pixel_slice, columns.pixel_slice] = label_pixels(values, rows, columns, code)
    return codes, least, most


def first_inside(
    mask_logits: torch.Tensor, proposals: torch.Tensor, size: tuple[int, int], *, mask_threshold: float
) -> torch.Tensor:
    """Give each pixel to the first proposal whose mask contains it.

    Args:
        mask_logits, proposals, size, mask_threshold: as for `strongest_claims`.

    Returns:
        (H, W) int32, the winner's index in the K `proposals`, or K where no mask contains the pixel.
    """
    winners = torch.zeros(size, dtype=torch.int32, device=mask_logits.device)
    grid = mask_logits.shape[-2], mask_logits.shape[-1]
    for rows, columns in tiles(grid, size, columns=len(proposals), device=mask_logits.device):
        probs = at_points(mask_logits, proposals, rows, columns).flatten(1)
        present = (probs.amax(1) >= mask_threshold).nonzero().flatten()
        candidates = padded(F.pad(present, (0, 1), value=len(proposals)), len(proposals)).int()
        # The padding stands for no proposal: it comes last, and every pixel is inside it.
        pad_widths = (0, 0, 0, len(candidates) - len(present))
        values = F.pad(probs.index_select(0, present), pad_widths, value=2).T.contiguous()

        def winner(probs: torch.Tensor, candidates: torch.Tensor = candidates) -> torch.Tensor:
            return candidates[first_largest(probs.clone().ge_(mask_threshold))]

        winners[rows.pixel_slice, columns.pixel_slice] = label_pixels(values, rows, columns, winner)
    return winners


def exact_area(
    mask_logits: torch.Tensor, proposal: torch.Tensor, size: tuple[int, int], *, inside: Callable[..., torch.Tensor]
) -> int:
    """How many pixels are inside a mask.

    Args:
        mask_logits, size: as for `strongest_claims`.
        proposal: () int64, the index of the mask.
        inside: mask probabilities → whether they are inside, of the same shape.
    """
    area = 0
    grid = mask_logits.shape[-2], mask_logits.shape[-1]
    for rows, columns in tiles(grid, size, columns=1, device=mask_logits.device):
        probs = at_points(mask_logits, proposal[None], rows, columns)
        least, most = (bound.item() for bound in areas(inside(probs), rows, columns))
        if least < most:
            values = probs.flatten(1).T.contiguous()
            least = label_pixels(values, rows, columns, lambda probs: inside(probs)[:, 0]).count_nonzero().item()
        area += int(least)
    return area
