"""The likeliest class of each pixel, computed without ever holding the scores of all classes at the photo's size."""

import torch
import torch.nn.functional as F


# How many class scores are held at a time: 16 MiB, about what a processor caches.
SCORES_PER_TILE = 2**22


def semantic_map(class_probs: torch.Tensor, mask_logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Argmax over c of the sum over q of p(c | q) × mask probability of q, bilinearly interpolated to `size`.

    Interpolation and the sum over proposals are both linear and change places freely: classes are mixed at the masks'
    own grid first, where pixels are few, and again at the photo's size only where that leaves doubt.

    Args:
        class_probs: (Q, C) float32.
        mask_logits: (Q, h, w).
        size: height and width of the map.

    Returns:
        (H, W) int64.
    """
    (h, w), (height, width) = mask_logits.shape[-2:], size
    if not len(class_probs):
        return torch.zeros(size, dtype=torch.int64, device=class_probs.device)
    class_ids = _classes_that_can_win(class_probs)
    class_probs = class_probs[:, class_ids]
    mask_probs = mask_logits.float().sigmoid().flatten(1).T.contiguous()  # (h * w, Q)
    tile = max(1, SCORES_PER_TILE // max(*class_probs.shape, 32))
    scores = class_probs.new_empty(tile, len(class_ids))  # one for all tiles: new ones would tear the heap to pieces

    def likeliest(points: torch.Tensor) -> torch.Tensor:
        return torch.mm(points, class_probs, out=scores[: len(points)]).max(-1).indices  # max is faster than argmax

    grid = torch.cat([likeliest(points) for points in mask_probs.split(tile)]).view(h, w)
    if (h, w) == (height, width):
        return class_ids[grid]

    # Where four neighbours agree on the likeliest class, so does all between them. Beyond the last row and column
    # roll finds the first ones: that can leave a pixel in doubt without need, but cannot decide one wrongly.
    agree = (grid == grid.roll(-1, 0)) & (grid == grid.roll(-1, 1)) & (grid == grid.roll((-1, -1), (0, 1)))
    (top, bottom, down), (left, right, across) = _sources(h, height, grid), _sources(w, width, grid)
    labels = torch.where(agree, grid, -1)[top][:, left].flatten()
    for pixels in (labels < 0).nonzero().flatten().split(tile):
        y, x = pixels // width, pixels % width
        corners = [rows[y] * w + columns[x] for rows in (top, bottom) for columns in (left, right)]
        weights = [rows[y] * columns[x] for rows in (1 - down, down) for columns in (1 - across, across)]
        # Gathers and mixes the four corners of each pixel in one pass.
        points = F.embedding_bag(
            torch.stack(corners, 1), mask_probs, per_sample_weights=torch.stack(weights, 1), mode="sum"
        )
        labels[pixels] = likeliest(points)
    return class_ids[labels].view(height, width)


def _classes_that_can_win(class_probs: torch.Tensor) -> torch.Tensor:
    """Ids of the classes that can be likeliest somewhere. A class that no proposal puts above the mean of some other
    classes is not above that mean at any pixel, hence not above the best of them; of a large vocabulary, most."""
    favourites = class_probs.argmax(-1).unique()
    can_win = (class_probs > class_probs[:, favourites].mean(-1, keepdim=True)).any(0)
    can_win[favourites] = True
    return can_win.nonzero().flatten()


def _sources(size: int, target_size: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The two rows (or columns) of the grid that each target row lies between, and how far it is from the first, as in
    `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`."""
    centres = torch.arange(target_size, dtype=torch.float32, device=like.device) + 0.5
    positions = (centres * (size / target_size) - 0.5).clamp(min=0)
    first = positions.long().clamp(max=size - 1)
    return first, (first + 1).clamp(max=size - 1), positions - first
