"""Pre-trains the CLIP of Patchwork from nothing: pictures of one thing against the texts of all words; then, on
request, scenes whose captions name everything on them.

On the web a batch of tens of thousands of captions tells CLIP what a picture is not. Here a batch has 64 pictures, so
each is compared to the texts of all words instead; several may be right. No mask is seen.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from fisa.studies.patchwork.optimizer import MuonTrainer
from fisa.studies.patchwork.scenes import Painter, Scene, SceneKind
from fisa.studies.patchwork.words import WORDS


IMAGE_SIZE, PATCH_SIZE, WIDTH = 96, 8, 128
TEMPLATES = (
    "a photo of a {}",
    "{}",
    "a {}",
    "a picture of a {}",
    "the {}",
    "a photo of the {}",
    "a small {}",
    "a drawing of a {}",
)

# Captions tell of things more than of what they stand on.
CAPTION_WEIGHTS = torch.tensor([1.0 if word.is_thing else 0.25 for word in WORDS])

CLOSE_UP = SceneKind(side=48, num_objects=(1, 1), object_size=(0.7, 0.98), num_patches=(1, 1), rotation=12.0)
PORTRAIT = SceneKind(side=48, num_objects=(1, 1), object_size=(0.35, 0.95), num_patches=(1, 2))
FRAME_SIDE = 48  # pixels
FRAMED = SceneKind(side=96, num_objects=(2, 5), object_size=(0.24, 0.5), num_patches=(2, 4))
SCENE = SceneKind(side=IMAGE_SIZE, num_objects=(1, 4), object_size=(0.22, 0.5), num_patches=(1, 3))


def word_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with merges learned from Patchwork's words: each is a token or two, any other can be spelt."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    spelling = CLIPTokenizer(vocab={start: 0, end: 1}, merges=[]).backend_tokenizer
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = spelling.normalizer, spelling.pre_tokenizer
    names = [name for word in WORDS for name in (word.name, *word.synonyms)]
    sentences = [template.format(name) for template in TEMPLATES for name in names]
    # Of pairs seen equally often the one with lower numbers is merged first: given here, they do not vary.
    letters = sorted({letter for sentence in sentences for letter in sentence.lower()})
    trainer = BpeTrainer(
        vocab_size=2000,
        min_frequency=2,
        special_tokens=[f"{letter}</w>" for letter in letters],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(sentences, trainer)
    merges = [tuple(merge) for merge in _merges(learner)]
    characters = sorted(ByteLevel.alphabet())
    tokens = [*characters, *(f"{character}</w>" for character in characters), *map("".join, merges), start, end]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=32)


def _merges(tokenizer: Tokenizer) -> list[Sequence[str]]:
    return json.loads(tokenizer.to_str())["model"]["merges"]


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIP of two narrow towers, with random weights; four layers see."""
    tower = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4, "projection_dim": WIDTH}
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    clip = CLIPModel(
        CLIPConfig(
            text_config=tower
            | special
            | {"num_hidden_layers": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 32},
            vision_config=tower | {"num_hidden_layers": 4, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE},
            projection_dim=WIDTH,
        )
    )
    init_as_trained_attention_looks(clip)
    return clip


@torch.no_grad()
def deepened(clip: CLIPModel, *, num_layers: int) -> CLIPModel:
    """The same CLIP with further layers in its image tower, spread among those that it has, which change nothing
    until they are trained: what they add to the tokens is zero."""
    config = copy.deepcopy(clip.config)
    old = clip.vision_model.encoder.layers
    config.vision_config.num_hidden_layers = num_layers
    deeper = CLIPModel(config)
    init_as_trained_attention_looks(deeper)
    new = deeper.vision_model.encoder.layers
    kept = {round((i + 1) * num_layers / len(old)) - 1: layer for i, layer in enumerate(old)}
    deeper.vision_model.encoder.layers = nn.ModuleList(kept.get(i, layer) for i, layer in enumerate(new))
    for i, layer in enumerate(new):
        if i not in kept:
            for addend in (layer.self_attn.out_proj, layer.mlp.fc2):
                nn.init.zeros_(addend.weight)
                nn.init.zeros_(addend.bias)
    weights = {name: weight for name, weight in clip.state_dict().items() if "vision_model.encoder.layers" not in name}
    deeper.load_state_dict(weights, strict=False)
    return deeper


@torch.no_grad()
def init_as_trained_attention_looks(clip: CLIPModel) -> None:
    """Mimetic initialisation (Trockman and Kolter, arXiv 2305.09828) of the image tower: queries meet keys like
    themselves, values pass through with their sign changed, positions are waves."""
    side = IMAGE_SIZE // PATCH_SIZE
    waves = torch.arange(side)[:, None] / 1000 ** (torch.arange(WIDTH // 4) / (WIDTH // 4))
    waves = torch.cat([waves.sin(), waves.cos()], dim=1)
    grid = torch.cat([waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)], dim=-1)
    clip.vision_model.embeddings.position_embedding.weight[1:] = 0.1 * grid.flatten(0, 1)
    identity = torch.eye(WIDTH)
    for layer in clip.vision_model.encoder.layers:
        attention = layer.self_attn
        for first, second, noise, like in (("q_proj", "k_proj", 0.7, 0.7), ("v_proj", "out_proj", 0.4, -0.4)):
            left, values, right = torch.linalg.svd(noise * torch.randn(WIDTH, WIDTH) / WIDTH**0.5 + like * identity)
            root = values.sqrt()
            getattr(attention, first).weight.copy_((left * root).T)
            second_weight = (root[:, None] * right) if second == "k_proj" else (root[:, None] * right).T
            getattr(attention, second).weight.copy_(second_weight)


class CaptionedPictures(Dataset):
    """Pictures in the order in which they are learned from: one large thing, then any size, then things among others
    and whole scenes. Of three, two are restyled.

    Args:
        painters: one per artist; they take turns.
        num_pictures: in all.
        batch_size: pictures of a batch are of one kind.
        portraits: the share of pictures before others are among them: of four batches then two show things among
            others, see [`framed`], and one whole scenes.
    """

    def __init__(self, painters: Sequence[Painter], *, num_pictures: int, batch_size: int, portraits: float):
        self.painters, self.num_pictures = painters, num_pictures
        self.batch_size, self.portraits = batch_size, portraits

    def __len__(self) -> int:
        return self.num_pictures

    def kind(self, index: int) -> SceneKind:
        """What kind of picture this one is."""
        batch = index // self.batch_size
        progress = batch * self.batch_size / self.num_pictures
        if progress < self.portraits:
            return CLOSE_UP if progress < self.portraits / 4 else PORTRAIT
        return (PORTRAIT, FRAMED, SCENE, FRAMED)[batch % 4]

    def __getitem__(self, index: int) -> Scene:
        turn, painter = divmod(index, len(self.painters))
        kind = self.kind(index)
        scene = self.painters[painter].paint(replace(kind, restyled=turn % 3 > 0), index)
        return framed(scene, np.random.default_rng((index, 1))) if kind is FRAMED else scene


def framed(scene: Scene, random: np.random.Generator) -> Scene:
    """What somebody takes who photographs one thing of a scene: a square around it, `FRAME_SIDE` pixels per side, with
    whatever else is there. What covers less than a twentieth of it goes unnamed."""
    things = [info for info in scene.segments_info if WORDS[info["category_id"] - 1].is_thing]
    subject = (things or scene.segments_info)[random.integers(len(things or scene.segments_info))]
    rows, columns = np.nonzero(scene.label == subject["id"])
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()]) + 1
    width = min((high - low).max() * random.uniform(1.0, 1.7), len(scene.label))
    aim = (low + high) / 2 + random.uniform(-0.1, 0.1, 2) * width
    corner = np.clip(aim - width / 2, 0, len(scene.label) - width)
    window = {"size": (FRAME_SIDE, FRAME_SIDE), "box": (*corner, *(corner + width))}
    image = np.asarray(Image.fromarray(scene.image).resize(resample=Image.BICUBIC, **window))
    label = np.asarray(Image.fromarray(scene.label).resize(resample=Image.NEAREST, **window))
    areas = np.bincount(label.ravel(), minlength=len(scene.segments_info) + 1)
    named = [info for info in scene.segments_info if info is subject or areas[info["id"]] >= label.size / 20]
    return Scene(image, label, named)


@dataclass(frozen=True)
class CaptionCollator:
    """Makes a batch: `pixel_values (B, 3, side, side)`, `targets (B, num_words)`, the share that each word has in the
    caption of each picture, and the texts of all words, each under one of its names in one of the templates.
    """

    tokenizer: CLIPTokenizer

    def __call__(self, scenes: Sequence[Scene]) -> dict[str, torch.Tensor]:
        random = np.random.default_rng(int(scenes[0].image.sum()))
        template = TEMPLATES[random.integers(len(TEMPLATES))]
        texts = [
            template.format(names[random.integers(len(names))])
            for names in ((word.name, word.name, *word.synonyms) for word in WORDS)
        ]
        targets = torch.zeros(len(scenes), len(WORDS))
        for target, scene in zip(targets, scenes):
            target[scene.class_indices] = CAPTION_WEIGHTS[scene.class_indices]
        targets /= targets.sum(dim=1, keepdim=True)
        return {
            "pixel_values": normalised(np.stack([scene.image for scene in scenes])),
            "targets": targets,
            **self.tokenizer(texts, padding=True, return_tensors="pt"),
        }


def normalised(
    images: np.ndarray, *, mean: Sequence[float] = OPENAI_CLIP_MEAN, std: Sequence[float] = OPENAI_CLIP_STD
) -> torch.Tensor:
    """`(B, side, side, 3)` uint8 as a model wants it, `(B, 3, side, side)`, float32."""
    pixels = (images.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


class ClipTrainer(MuonTrainer):
    """Trains a CLIP on [`CaptionedPictures`], in their order."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    def compute_loss(
        self, model: CLIPModel, inputs: Mapping[str, torch.Tensor], return_outputs: bool = False, **_: Any
    ) -> torch.Tensor:
        """Cross-entropy of each picture with the texts of all words."""
        outputs = model(
            pixel_values=inputs["pixel_values"],
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            interpolate_pos_encoding=True,
        )
        loss = nn.functional.cross_entropy(outputs.logits_per_image, inputs["targets"])
        return (loss, outputs) if return_outputs else loss


@torch.no_grad()
def zero_shot_accuracy(model: CLIPModel, tokenizer: CLIPTokenizer, painter: Painter, *, num_pictures: int) -> float:
    """Share of pictures of one thing, on one patch of stuff, that get its name among those of all things."""
    model.eval()
    kind = replace(CLOSE_UP, num_patches=(1, 1))
    names = [TEMPLATES[0].format(word.name) for word in WORDS if word.is_thing]
    texts = model.get_text_features(**tokenizer(names, padding=True, return_tensors="pt")).pooler_output
    right = 0
    for start in range(0, num_pictures, 256):
        scenes = [painter.paint(kind, number) for number in range(start, min(start + 256, num_pictures))]
        truth = [max(scene.class_indices[:1]) for scene in scenes]
        pixels = normalised(np.stack([scene.image for scene in scenes]))
        images = model.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True).pooler_output
        predicted = (nn.functional.normalize(images, dim=-1) @ nn.functional.normalize(texts, dim=-1).T).argmax(dim=-1)
        right += (predicted == torch.tensor(truth)).sum().item()
    return right / num_pictures
