"""The proposal cache: what the mask classifier needs of a frozen generator's proposals, found once and kept on disk.

The loss looks only at proposals that are matched to a ground-truth segment, and no mask token looks at another. So the
cache holds, for each view of each photo, the matched proposals alone: the patches that each of them makes its mask
token see, one bit a patch, and the id of its segment. Training from it gives the loss that the generator gives.

Files: `manifest.json`, which says what the cache was made from, and shards of photos, each written whole under another
name and then renamed. Hence a cache that is broken off at any moment is continued where it stopped, and processes that
build it together, or by accident at once, do not disturb each other.
"""

import json
import os
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save
from transformers import PreTrainedModel

from fisa.processing.files import weights_digest, write_whole


FORMAT = 1
PHOTOS_PER_SHARD = 32
MANIFEST = "manifest.json"


class StaleCacheError(ValueError):
    """A cache that was made from something else."""


@dataclass(frozen=True)
class MatchedProposals:
    """The matched proposals of one view of one photo.

    Attributes:
        seen: `(N, num_patches)` bool, the patches that each mask token attends to.
        segment_ids: `(N,)` int64, the ground-truth segment of each.
    """

    seen: np.ndarray
    segment_ids: np.ndarray


class ProposalCache:
    """A folder of matched proposals, read piece by piece.

    Args:
        folder: where the cache lies or is to be made.
        key: what it is made from, plain data for JSON; see [`cache_key`].
        num_photos: how many photos it is for.
        grid: rows and columns of patches.
        views: 1, or 2 where mirrored photos are cached too.

    Raises:
        StaleCacheError: the folder holds a cache that was made from something else; the message says from what.
    """

    def __init__(
        self, folder: str | os.PathLike, *, key: Mapping[str, Any], num_photos: int, grid: tuple[int, int], views: int
    ):
        self.folder = Path(folder)
        self.num_photos, self.grid, self.views = num_photos, grid, views
        self._opened: tuple[int, Any] | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = dict(key) | {
            "format": FORMAT,
            "photos": num_photos,
            "patches": list(grid),
            "views": views,
            "photos a shard": PHOTOS_PER_SHARD,
        }
        manifest = self.folder / MANIFEST
        if not manifest.exists():
            write_whole(manifest, json.dumps(wanted, indent=1).encode())
        # What is wanted goes through JSON too: a tuple there and a list here are the same.
        self._refuse_if_stale(json.loads(manifest.read_bytes()), json.loads(json.dumps(wanted)))

    def _refuse_if_stale(self, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        changed = [name for name in wanted if found.get(name) != wanted[name]]
        if changed:
            listed = "; ".join(
                f"{name}: {_brief(found.get(name))} there, {_brief(wanted[name])} now" for name in changed
            )
            raise StaleCacheError(
                f"The proposal cache in {self.folder} was made from something else ({listed}). "
                "Name another folder with --proposal_cache, or delete this one."
            )

    @property
    def num_shards(self) -> int:
        return -(-self.num_photos // PHOTOS_PER_SHARD)

    def missing_shards(self) -> list[int]:
        """Shards that are not written yet."""
        return [shard for shard in range(self.num_shards) if not self._shard_path(shard).exists()]

    def photos_of(self, shard: int) -> range:
        """Indices of a shard's photos."""
        first = shard * PHOTOS_PER_SHARD
        return range(first, min(first + PHOTOS_PER_SHARD, self.num_photos))

    def write_shard(self, shard: int, views: list[MatchedProposals]) -> None:
        """Write one shard at once: for each of its photos in their order, each of its views in theirs."""
        ends = np.cumsum([len(view.segment_ids) for view in views])
        content = {
            "seen": np.packbits(np.concatenate([view.seen for view in views]), axis=1),
            "segment_ids": np.concatenate([view.segment_ids for view in views]).astype(np.int64),
            "ends": ends.astype(np.int64),
        }
        write_whole(self._shard_path(shard), save(content))

    def proposals(self, index: int, *, flipped: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The matched proposals of a photo, or of its mirror image.

        Returns:
            the patches seen, `(N, rows, columns)` bool, and the ids of the segments, `(N,)` int64.
        """
        shard, place = divmod(index, PHOTOS_PER_SHARD)
        view = place * self.views + flipped
        content = self._content(shard)
        ends = content.get_slice("ends")[: view + 1].tolist()
        rows = slice(ends[-2] if view else 0, ends[-1])
        if rows.start == rows.stop:  # and safetensors cannot slice a tensor that is empty as a whole
            return torch.zeros(0, *self.grid, dtype=torch.bool), torch.zeros(0, dtype=torch.long)
        packed = content.get_slice("seen")[rows]
        seen = np.unpackbits(packed, axis=1, count=self.grid[0] * self.grid[1]).view(bool)
        segment_ids = content.get_slice("segment_ids")[rows]
        return torch.from_numpy(seen.reshape(-1, *self.grid)), torch.from_numpy(segment_ids)

    def num_bytes(self) -> int:
        """Size of all shards on disk."""
        return sum(self._shard_path(shard).stat().st_size for shard in range(self.num_shards))

    def _content(self, shard: int) -> Any:
        # One file open at a time: a hundred thousand photos are thousands of shards.
        if self._opened is None or self._opened[0] != shard:
            self._opened = shard, safe_open(self._shard_path(shard), framework="np")
        return self._opened[1]

    def _shard_path(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.safetensors"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}  # an open file does not travel to a worker process


def _brief(value: Any) -> str:
    """A value for a message: a data set's says all its categories."""
    return textwrap.shorten(str(value), width=80, placeholder=" …")


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 of a model's architecture and weights, in hexadecimal."""
    return weights_digest(_architecture(model), sorted(model.state_dict().items()))


# What a folder was called, who saved it and how changes no proposal; types are told by the weights themselves.
_IRRELEVANT = {"_name_or_path", "transformers_version", "architectures", "dtype"}


def _architecture(model: PreTrainedModel) -> dict[str, Any]:
    def relevant(config: Any) -> Any:
        if isinstance(config, dict):
            return {name: relevant(value) for name, value in config.items() if name not in _IRRELEVANT}
        return config

    return relevant(json.loads(model.config.to_json_string(use_diff=False)))
