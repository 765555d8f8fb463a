"""Small checkpoints that lie as published ones do: in Hugging Face's cache, or on a server that answers as the Hub."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import torch
from safetensors.torch import load_file
from transformers import AutoModelForUniversalSegmentation

from fisa.miniature import IMAGE_SIZE, character_clip_tokenizer, miniature_clip, miniature_mask_generator
from fisa.processing.class_lists import class_list


COMMIT = "0" * 40
MEAN, DEVIATION = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
CLIP_PHOTOS = {
    "crop_size": IMAGE_SIZE,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": MEAN,
    "image_std": DEVIATION,
    "resample": 3,
    "size": IMAGE_SIZE,
}
GENERATOR_PHOTOS = {
    "_max_size": 160,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "ignore_index": 255,
    "image_mean": MEAN,
    "image_processor_type": "Mask2FormerImageProcessor",
    "image_std": DEVIATION,
    "num_labels": 133,
    "reduce_labels": False,
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"longest_edge": 160, "shortest_edge": 96},
    "size_divisor": 32,
}


def write_clip(folder: Path) -> None:
    """A CLIP as OpenAI's is published: weights in PyTorch's own form, settings of its first days."""
    tokenizer = character_clip_tokenizer()
    torch.manual_seed(0)
    clip = miniature_clip(tokenizer)
    clip.config.text_config.eos_token_id = 2
    clip.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(CLIP_PHOTOS))


def write_mask_generator(folder: Path) -> None:
    """A Mask2Former with the labels of COCO's panoptic classes."""
    torch.manual_seed(0)
    config = miniature_mask_generator().config
    config.id2label = {number: category.name for number, category in enumerate(class_list("coco_133"))}
    AutoModelForUniversalSegmentation.from_config(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(GENERATOR_PHOTOS))


def cached(cache: Path, name: str) -> Path:
    """The folder of a name in the cache `HF_HUB_CACHE`, ready to be filled."""
    root = cache / f"models--{name.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    return snapshot


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """The address of a server that has the folders `OWNER/NAME` in `root` as a Hub has its models."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, root))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Hub(BaseHTTPRequestHandler):
    def __init__(self, root: Path, *arguments):
        self.root = root
        super().__init__(*arguments)

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        body = self._answer()
        self.wfile.write(body)

    def _answer(self) -> bytes:
        path = self.path.partition("?")[0].strip("/")
        if path.startswith("api/models/"):
            owner, name, *rest = path.split("/")[2:]
            folder = self.root / owner / name
            files = [file for file in sorted(folder.glob("*")) if file.is_file()]
            if rest[:1] == ["tree"]:
                about = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": COMMIT} for f in files]
            else:
                siblings = [{"rfilename": file.name} for file in files]
                about = {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": siblings}
            found = folder.is_dir() and rest[:1] in ([], ["revision"], ["tree"])
            return self._send(json.dumps(about).encode() if found else None)
        name, _, file = path.partition("/resolve/")
        place = self.root / name / file.partition("/")[2]
        return self._send(place.read_bytes() if place.is_file() else None)

    def _send(self, body: bytes | None) -> bytes:
        self.send_response(404 if body is None else 200)
        if body is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        body = body or b""
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return body

    def log_message(self, *_):
        pass
