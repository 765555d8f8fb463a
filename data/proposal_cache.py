"""The proposal cache: what the mask classifier needs of a frozen generator's proposals, computed once, kept on disk.

The loss looks only at proposals that are matched to a ground-truth segment, and no mask token looks at another. So the
cache holds, for each view of each photo, the matched proposals alone: the patches that each of them makes its mask
token see, one bit per patch, and the id of its segment. Where image tokens attend less to patches of other proposals
(`segment_attention_penalty`), it also holds which of all proposals each patch belongs to. Training from it gives the
loss that the generator gives.

Files: `manifest.json`, which says what the cache was made from, and shards of photos, each written whole under another
name and then renamed. So a cache that is interrupted at any moment is continued where it stopped, and processes that
build it at the same time, together or by accident, do not disturb each other. Each shard says which cache and which
photos it belongs to and carries the digest of its content: one that was cut short, changed or misplaced is made again.
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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from transformers import PreTrainedModel
from transformers.utils import logging

from fisa.processing.files import weights_digest, write_whole


logger = logging.get_logger(__name__)

FORMAT = 2
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
        patch_segments: `(num_patches,)` integers, which of all proposals, matched or not, each patch belongs to;
            `None` where no image token looks at that.
    """

    seen: np.ndarray
    segment_ids: np.ndarray
    patch_segments: np.ndarray | None = None


class ProposalCache:
    """A folder of matched proposals, read piece by piece.

    Args:
        folder: where the cache lies or is to be made.
        key: what it is made from, as plain data for JSON; see [`cache_key`].
        num_photos: how many photos it is for.
        grid: rows and columns of patches.
        views: 1, or 2 where mirrored photos are cached too.
        has_patch_segments: whether it also holds which proposal each patch belongs to.

    Raises:
        StaleCacheError: the folder holds a cache that was made from something else; the message says from what.
        ValueError: the folder is a file.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        key: Mapping[str, Any],
        num_photos: int,
        grid: tuple[int, int],
        views: int,
        has_patch_segments: bool = False,
    ):
        self.folder = Path(folder)
        self.num_photos, self.grid, self.views = num_photos, grid, views
        self.has_patch_segments = has_patch_segments
        self._opened: tuple[int, Any] | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"{self.folder} is, or lies in, a file; name a folder for the proposal cache.") from error
        made_from = dict(key) | {
            "format": FORMAT,
            "photos": num_photos,
            "patches": list(grid),
            "views": views,
            "photos per shard": PHOTOS_PER_SHARD,
        }
        if has_patch_segments:
            made_from["patch segments"] = "of all proposals"
        # Through JSON, as the manifest goes: a tuple here and a list there are the same.
        self._made_from = json.loads(json.dumps(made_from))
        self._name = weights_digest(self._made_from, ())
        manifest = _read_manifest(self.folder / MANIFEST)
        if manifest is None:
            self._refuse_strange_shards()
            write_whole(self.folder / MANIFEST, json.dumps(made_from, indent=1))
        else:
            self._refuse_if_stale(manifest)

    def _refuse_if_stale(self, manifest: dict[str, Any]) -> None:
        names = {**self._made_from, **manifest}
        changed = [name for name in names if manifest.get(name) != self._made_from.get(name)]
        if changed:
            listed = "; ".join(
                f"{name}: {_brief(manifest.get(name))} there, {_brief(self._made_from.get(name))} now"
                for name in changed
            )
            raise StaleCacheError(
                f"The proposal cache in {self.folder} was made from something else ({listed}). "
                "Name another folder with --proposal_cache, or delete this one."
            )

    def _refuse_strange_shards(self) -> None:
        """Without a manifest, the shards themselves say which cache they belong to."""
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                label, _ = _read_shard(path)
            except (SafetensorError, ValueError):
                continue  # cut short: made again
            if label.get("cache") != self._name:
                raise StaleCacheError(
                    f"{self.folder} has no readable {MANIFEST}, and {path.name} is not of the cache that would be "
                    "made there. Name another folder with --proposal_cache, or delete this one."
                )

    @property
    def num_shards(self) -> int:
        return -(-self.num_photos // PHOTOS_PER_SHARD)

    def missing_shards(self) -> list[int]:
        """Shards that are not there or, with a warning, not as they were written. All others are read in full."""
        missing = []
        for shard in range(self.num_shards):
            problem = self._problem(shard) if self._shard_path(shard).exists() else None
            if problem is not None:
                logger.warning(f"{self._shard_path(shard)}: {problem}; it is made again.")
            if problem is not None or not self._shard_path(shard).exists():
                missing.append(shard)
        return missing

    def _problem(self, shard: int) -> str | None:
        try:
            label, content = _read_shard(self._shard_path(shard))
        except (SafetensorError, ValueError) as error:
            return f"it cannot be read ({error})"
        if label == self._label(shard, content):
            return None
        belongs = label.get("cache") == self._name and label.get("shard") == shard
        return "its content is not what was written" if belongs else "it belongs to another cache or to other photos"

    def _label(self, shard: int, content: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """What a shard says about itself."""
        return {"cache": self._name, "shard": shard, "content": weights_digest(None, sorted(content.items()))}

    def photos_of(self, shard: int) -> range:
        """Indices of a shard's photos."""
        first = shard * PHOTOS_PER_SHARD
        return range(first, min(first + PHOTOS_PER_SHARD, self.num_photos))

    def write_shard(self, shard: int, views: list[MatchedProposals]) -> None:
        """Write one shard at once: for each of its photos in their order, each of its views in theirs."""
        ends = np.cumsum([len(view.segment_ids) for view in views])
        content = {
            "seen": torch.from_numpy(np.packbits(np.concatenate([view.seen for view in views]), axis=1)),
            "segment_ids": torch.from_numpy(np.concatenate([view.segment_ids for view in views]).astype(np.int64)),
            "ends": torch.from_numpy(ends.astype(np.int64)),
        }
        if self.has_patch_segments:
            segments = np.array([view.patch_segments for view in views], np.int16)
            content["patch_segments"] = torch.from_numpy(segments)
        label = json.dumps(self._label(shard, content))
        write_whole(self._shard_path(shard), save(content, metadata={"label": label}))

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

    def patch_segments(self, index: int, *, flipped: bool) -> torch.Tensor:
        """Which of all proposals each patch of a photo, or of its mirror image, belongs to: `(num_patches,)` int64."""
        shard, place = divmod(index, PHOTOS_PER_SHARD)
        view = place * self.views + flipped
        (segments,) = self._content(shard).get_slice("patch_segments")[view : view + 1]
        return torch.from_numpy(segments.astype(np.int64))

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


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest; `None` if there is none or it cannot be read, for the shards say the same."""
    try:
        manifest = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _read_shard(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a shard says about itself (nothing, if it is not a shard of a cache) and its content."""
    with safe_open(path, framework="pt") as file:
        label = json.loads((file.metadata() or {}).get("label", "{}"))
        content = {name: file.get_tensor(name) for name in file.keys()}
    return label if isinstance(label, dict) else {}, content


def _brief(value: Any) -> str:
    """A value shortened for a message: that of a data set lists all its categories."""
    if value is None:
        return "nothing"
    return textwrap.shorten(str(value), width=80, placeholder=" …")


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 of a model's architecture and weights, in hexadecimal."""
    return weights_digest(_architecture(model), sorted(model.state_dict().items()))


# Name, version and saver of a model change no proposal, and the weights carry their own types.
_IRRELEVANT = {"_name_or_path", "transformers_version", "architectures", "dtype"}


def _architecture(model: PreTrainedModel) -> dict[str, Any]:
    def relevant(config: Any) -> Any:
        if isinstance(config, dict):
            return {name: relevant(value) for name, value in config.items() if name not in _IRRELEVANT}
        return config

    return relevant(json.loads(model.config.to_json_string(use_diff=False)))
