"""The likeliest class of each pixel, without the scores of all classes at the photo's size in memory."""

from functools import partial

import torch
import torch.nn.functional as F

from fisa.processing.resampling import at_points, first_largest, label_pixels, padded, tiles


# Masks vary little within so few cells: most classes can be ruled out there.
CELLS_PER_BLOCK_SIDE = 4
# With at least this many classes, ruling out classes for the whole tile first saves time.
MANY_CLASSES = 1000


def semantic_map(class_probs: torch.Tensor, mask_logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The class c with the largest sum over q of p(c | q) × mask probability of q, bilinearly interpolated to `size`.

    Interpolation and the sum over proposals are both linear, so that their order does not matter: class scores are
    summed on the masks' own grid, which has few points, and interpolated only where neighbouring points disagree on
    the likeliest class.

    Args:
        class_probs: (Q, C) float32.
        mask_logits: (Q, h, w).
        size: height and width of the map.

    Returns:
        (H, W) int64.
    """
    labels = torch.zeros(size, dtype=torch.int64, device=class_probs.device)
    if not len(class_probs):
        return labels
    num_classes, all_proposals = class_probs.shape[1], torch.arange(len(class_probs), device=labels.device)
    favourite_probs = class_probs[:, class_probs.argmax(-1).unique()]
    by_class = F.pad(class_probs.T, (0, 0, 0, 1))  # plus one class of probability 0 as padding
    grid = mask_logits.shape[-2], mask_logits.shape[-1]
    for rows, columns in tiles(grid, size, columns=max(class_probs.shape), device=labels.device):
        masks = at_points(mask_logits, all_proposals, rows, columns)
        class_ids = _can_win(masks, by_class[:-1], favourite_probs)
        class_ids = padded(class_ids, num_classes)
        scores = masks.flatten(1).T @ by_class[class_ids].T

        def likeliest(scores: torch.Tensor, class_ids: torch.Tensor = class_ids) -> torch.Tensor:
            return class_ids[first_largest(scores)]

        labels[rows.pixel_slice, columns.pixel_slice] = label_pixels(scores, rows, columns, likeliest)
    return labels


def _can_win(masks: torch.Tensor, by_class: torch.Tensor, favourite_probs: torch.Tensor) -> torch.Tensor:
    """Indices of the classes that can be likeliest somewhere in a tile.

    The tile is divided into blocks. A class can win in a block if its score with the highest value of each mask
    reaches the best score of the proposals' favourite classes with the lowest values.
    """
    sides = [min(CELLS_PER_BLOCK_SIDE + 1, side) for side in masks.shape[-2:]]  # in points
    highest_in_blocks = partial(F.max_pool2d, kernel_size=sides, stride=CELLS_PER_BLOCK_SIDE, ceil_mode=True)
    highest = highest_in_blocks(masks).flatten(1).T
    lowest = -highest_in_blocks(-masks).flatten(1).T
    # The tolerance covers the different rounding of the products.
    to_beat = (1 - 1e-5) * (lowest @ favourite_probs).amax(-1, keepdim=True)
    class_ids = torch.arange(len(by_class), device=masks.device)
    if len(by_class) >= MANY_CLASSES:
        in_some_block = ~(highest.amax(0, keepdim=True) @ by_class.T < to_beat.min())
        class_ids = class_ids[in_some_block[0]]
    return class_ids[(~(highest @ by_class[class_ids].T < to_beat)).any(0)]
