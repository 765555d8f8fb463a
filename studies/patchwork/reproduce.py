"""`python -m fisa.studies.patchwork.reproduce`: the paper's claims, measured in Patchwork.

Every run is one that a user could start: `train.py recipes/patchwork.yaml` with other flags. Finished runs are not
repeated, so that the study may be stopped at any moment. `--quick` evaluates what ships, on the scenes that ship.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from scipy.stats import t as student_t
from torch import nn

from fisa import train
from fisa.evaluation.headlines import headlines
from fisa.evaluation.report import class_changes, draw_changes
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.pretrained.patchwork import ADAPTER, CHECKPOINT
from fisa.processing.files import write_whole, written_whole
from fisa.processing.processing_fisa import FisaProcessor
from fisa.studies.patchwork.clip_pretraining import CLOSE_UP, normalised
from fisa.studies.patchwork.dataset import PACK, SHIFTED, SPLITS, write_split
from fisa.studies.patchwork.scenes import Painter
from fisa.studies.patchwork.words import SEEN, THINGS


RECIPE = Path(__file__).parents[2] / "recipes" / "patchwork.yaml"
CATEGORIES = PACK / "categories.json"
SHARED_FLAGS = {"eval_format": "hub", "eval_classes": CATEGORIES, "report_to": "none"}
RETENTION_SEED, RETENTION_PICTURES = 80, 1000


@dataclass(frozen=True)
class Method:
    """One way to adapt the model.

    Attributes:
        title: for tables.
        flags: of `train.py`, beyond the recipe's.
        trains: whether anything is trained; else it is measured once rather than for every seed.
    """

    title: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    trains: bool = True


NO_SEVE = {"fisa_config": '{"seve_layers": []}'}
NO_IMAGE = {"image_stream": False}
METHODS = {
    "frozen": Method("CLIP with mask tokens, frozen", NO_SEVE, trains=False),
    "mask_q": Method("SIMO: mask queries", NO_SEVE | NO_IMAGE),
    "simo": Method("SIMO: mask and image queries", NO_SEVE),
    "seve": Method("SEVE alone", NO_IMAGE | {"mask_queries": False, "mask_position": False}),
    "mask_q_seve": Method("SIMO: mask queries, with SEVE", NO_IMAGE),
    "fisa": Method("FISA: SIMO with SEVE"),
    "early_seve": Method("FISA, SEVE in the first layer", {"fisa_config": '{"seve_layers": [0]}'}),
    "seve_both": Method("FISA, SEVE as cross-attention of its own", {"fisa_config": '{"seve_tokens": "both"}'}),
    "seve_image": Method("the same, of image tokens alone", {"fisa_config": '{"seve_tokens": "image"}'}),
    "seve_mask": Method("the same, of mask tokens alone", {"fisa_config": '{"seve_tokens": "mask"}'}),
    "ground_truth": Method("FISA, trained on ground-truth masks", {"mask_source": "ground_truth"}),
    "coloured": Method("FISA, colours changed in training", {"color": 0.4}),
    "whole_way": Method("FISA, not half way back to the base", {"start_share": 0}),
    "gentle": Method("the same, a tenth of the learning rate", {"start_share": 0, "learning_rate": 5e-4}),
    "distilled": Method("FISA, whole pictures' embeddings held", {"distillation_weight": 10.0}),
    "last_layers": Method("FISA, image queries of the last two layers alone", {"image_layers": [3, 4]}),
    "lora": Method("LoRA of rank 16 in SIMO's places", {"lora_rank": 16, "learning_rate": 1e-3, "start_share": 0}),
    "full": Method(
        "All projections of the image tower",
        NO_SEVE | {"image_projections": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]},
    ),
}
ORACLES = {"frozen": ("classifier", "generator")}


class Study:
    """Runs, and what they measured.

    Args:
        folder: where they lie.
        num_seeds: runs of each method.
        num_scenes: scenes of each test split.
        model: folder of the model that is adapted, as [`~fisa.studies.patchwork.checkpoint`] puts it together.
        zoom: how many proposals of each scene are read a second time, by every method alike.
    """

    def __init__(self, folder: Path, *, num_seeds: int, num_scenes: int, model: Path = CHECKPOINT, zoom: int = 0):
        self.folder, self.seeds, self.num_scenes = folder, range(num_seeds), num_scenes
        self.model, self.zoom = model, zoom

    def run(self, method: str, split: str, seed: int, *, oracle: str = "none") -> dict[str, float]:
        """Figures of one run on one split, in percent, made if they are not there."""
        folder = self.evaluations(method, seed, split) / oracle
        return self.evaluation(folder, split, METHODS[method], weights=self.weights(method, seed), oracle=oracle)

    def evaluations(self, method: str, seed: int, split: str) -> Path:
        """Where the evaluations of a run on a split lie."""
        return self.folder / method / str(seed) / f"zoom-{self.zoom}" / split

    def weights(self, method: str, seed: int) -> dict[str, Path]:
        """What a run left, as flags of `train.py`, made if it is not there."""
        return {"adapter": self._adapter(method, seed)} if METHODS[method].trains else {}

    def evaluation(
        self, folder: Path, split: str, method: Method, *, weights: Mapping[str, Path], oracle: str = "none"
    ) -> dict[str, float]:
        """Evaluate an adapter, or another model than the base, unless that was done."""
        metrics = folder / "metrics.json"
        if not metrics.exists():
            flags = SHARED_FLAGS | {"model": self.model, "eval_data": self.data(split), "eval_split": split}
            flags |= {"oracle": oracle, "do_eval": "true", "output_dir": folder, "zoom": self.zoom}
            flags |= {"per_device_eval_batch_size": 24}
            flags |= {name: value for name, value in method.flags.items() if name == "fisa_config"}
            train.train_and_evaluate(as_flags(flags | weights))
        return figures(json.loads(metrics.read_text(encoding="utf-8")))

    def data(self, split: str) -> Path:
        """Where the scenes of a split are: painted if none ship."""
        if SPLITS[split].num_shipped:
            return PACK
        folder = self.folder / "scenes" / f"{split}-{self.num_scenes}"
        if not folder.exists():
            with written_whole(folder) as aside:
                write_split(split, aside, num_scenes=self.num_scenes)
        return folder

    def costs(self, method: str, seed: int) -> dict[str, float]:
        """Seconds of one CPU core that a run's training took, and the parameters it trained."""
        return json.loads((self._adapter(method, seed) / "cost.json").read_text(encoding="utf-8"))

    def class_gains(self, split: str, *, over: str, of: str) -> list[tuple[str, float]]:
        """By how many points of IoU each class is better with one method than with another, means over the seeds, the
        largest changes from gain to loss: the paper's figure 3."""
        before, after = (self._mean_ious(method, split) for method in (over, of))
        changes, _ = class_changes(before, after)
        return changes

    def _mean_ious(self, method: str, split: str) -> dict[str, Any]:
        reports = [
            json.loads((self.evaluations(method, seed, split) / "none" / "metrics.json").read_text("utf-8"))
            for seed in self.seeds
        ]
        values = [report["semantic"]["per_class"] for report in reports]
        ious = {word: [value[word]["iou"] for value in values] for word in values[0]}
        # A word that is on no scene has no IoU in those runs that never say it.
        mean = {word: {"iou": statistics.fmean(values)} for word, values in ious.items() if None not in values}
        return {"semantic": {"per_class": mean}}

    def retention(self, method: str, seed: int) -> dict[str, float]:
        """Zero-shot accuracy of the adapted image tower, made if it is not there."""
        path = self.folder / method / str(seed) / "retention.json"
        if not path.exists():
            model = self.loaded(METHODS[method], self.weights(method, seed))
            processor = FisaProcessor.from_pretrained(self.model)
            accuracies = {
                "retention": image_tower_accuracy(model, processor, with_seve=False),
                "retention_with_seve": image_tower_accuracy(model, processor, with_seve=True),
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(accuracies), encoding="utf-8")
        return json.loads(path.read_text(encoding="utf-8"))

    def base(self, method: Method) -> FisaForUniversalSegmentation:
        """The model as it was, with the method's settings."""
        settings = json.loads(method.flags.get("fisa_config", "{}"))
        return FisaForUniversalSegmentation.from_pretrained(self.model, **settings)

    def loaded(self, method: Method, weights: Mapping[str, Path]) -> FisaForUniversalSegmentation:
        """The model that a run left, in evaluation mode."""
        model = self.base(method)
        if "adapter" in weights:
            model = PeftModel.from_pretrained(model, weights["adapter"]).merge_and_unload()
        return model.eval()

    def _adapter(self, method: str, seed: int) -> Path:
        folder = self.folder / method / str(seed) / "adapter"
        if not (folder / "cost.json").exists():
            flags = {
                "seed": seed,
                "output_dir": folder,
                "do_eval": "false",
                "report_to": "none",
                "save_strategy": "no",
            }
            flags |= {"model": self.model, "train_data": PACK, "classes": PACK / "seen.json"}
            flags |= {"proposal_cache": self.folder / "proposals", "eval_classes": CATEGORIES}
            started = time.process_time()
            train.train_and_evaluate([str(RECIPE), *as_flags(flags | METHODS[method].flags)])
            spent = time.process_time() - started
            adapted = PeftModel.from_pretrained(self.base(METHODS[method]), folder, is_trainable=True)
            cost = {"cpu_seconds": spent, "trained_parameters": adapted.get_nb_trainable_parameters()[0]}
            (folder / "cost.json").write_text(json.dumps(cost), encoding="utf-8")
        return folder


def as_flags(options: Mapping[str, Any]) -> list[str]:
    """Command-line flags; a list becomes several values."""
    flags: list[str] = []
    for name, value in options.items():
        flags += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return flags


def figures(report: Mapping[str, Any]) -> dict[str, float]:
    """An evaluation's headline figures, and PQ and mIoU over seen and over unseen words, in percent."""
    in_percent = headlines(report)
    for task, key, name in (("panoptic", "pq", "pq"), ("semantic", "iou", "miou")):
        values = {word: per_class[key] for word, per_class in report[task]["per_class"].items()}
        for kind, wanted in (("seen", True), ("unseen", False)):
            chosen = [value for word, value in values.items() if (word in SEEN) == wanted and value is not None]
            in_percent[f"{name}_{kind}"] = statistics.fmean(chosen)
    return in_percent


@torch.no_grad()
def image_tower_accuracy(
    model: FisaForUniversalSegmentation, processor: FisaProcessor, *, with_seve: bool, artist: str = SHIFTED
) -> float:
    """Share of pictures of one thing that the image tower, used as CLIP is, names right among all things, in percent.

    Args:
        with_seve: whether the tower is guided by these names.
    """
    texts = model.fisa.encode_vocabulary(processor, [word.name for word in THINGS]).class_embeds
    painter, right = Painter(artist, seed=RETENTION_SEED), 0
    for start in range(0, RETENTION_PICTURES, 100):
        scenes = [painter.paint(CLOSE_UP, number) for number in range(start, start + 100)]
        pixels = normalised(torch.stack([torch.from_numpy(scene.image) for scene in scenes]).numpy())
        if with_seve:
            no_masks = torch.zeros(len(pixels), 0, 1, 1)
            tokens = model.fisa(pixels, no_masks, class_embeds=texts).last_hidden_state[:, 0]
            embeds = model.fisa.visual_projection(model.fisa.vision_model.post_layernorm(tokens))
        else:
            embeds = model.fisa.get_image_features(pixels).pooler_output
        predicted = (nn.functional.normalize(embeds, dim=-1) @ texts.T).argmax(dim=-1)
        right += sum(int(place) == scene.class_indices[0] for place, scene in zip(predicted, scenes))
    return 100 * right / RETENTION_PICTURES


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % confidence interval (Student's t)."""
    if len(values) < 2:
        return statistics.fmean(values), float("nan")
    half = student_t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values), half


COSTS = ("retention", "retention_with_seve", "trained_parameters", "cpu_seconds")
SHOWN = ("pq", "sq", "rq", "miou", "ap", "pq_seen", "pq_unseen", "miou_seen", "miou_unseen")


def table(rows: Mapping[str, Mapping[str, list[float]]], columns: tuple[str, ...]) -> str:
    """A table in Markdown: means, and half the width of their intervals where there are several runs."""
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for title, row in rows.items():
        lines.append(f"| {title} | {' | '.join(_cell(row.get(column, [])) for column in columns)} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    mean, half = interval(values)
    return f"{mean:.1f}" if len(values) < 2 else f"{mean:.1f} ± {half:.1f}"


def gathered(runs: Iterable[dict[str, float]]) -> dict[str, list[float]]:
    """The values of each figure."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run.items():
            values.setdefault(name, []).append(value)
    return values


GAINS = (("simo", "frozen"), ("fisa", "frozen"), ("fisa", "simo"))
"""Which method is compared with which other one."""


def gains(rows: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, list[float]]]:
    """By how many points one method is better than another, seed by seed, for the comparisons that the paper makes.

    Args:
        rows: values of each figure by method, in percent; a single run is compared with every seed.

    Returns:
        the differences of each figure by seed, in points, for every pair of `GAINS` whose methods are both in `rows`.
    """
    differences = {}
    for better, worse in GAINS:
        if {better, worse} <= rows.keys():
            pairs = {name: (rows[better][name], rows[worse][name]) for name in SHOWN}
            differences[f"{METHODS[better].title}, over {METHODS[worse].title}"] = {
                name: [a - b for a, b in zip(mine, theirs * len(mine) if len(theirs) == 1 else theirs, strict=True)]
                for name, (mine, theirs) in pairs.items()
            }
    return differences


def tables(results: Mapping[str, Mapping[str, Mapping[str, list[float]]]]) -> str:
    """What a study found, in Markdown: for each split all methods, and what they gain over each other.

    Args:
        results: the content of a `results.json`: values of each figure by split and method.
    """
    text = ""
    for split, rows in results.items():
        titled = {METHODS[name].title if name in METHODS else name: row for name, row in rows.items()}
        text += f"## {split}\n\n{table(titled, (*SHOWN, *COSTS))}\n\n{table(gains(rows), SHOWN)}\n\n"
    return text


def main() -> None:
    """Measure, write `results.json`, and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.patchwork.reproduce", description=main.__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/patchwork/reproduce"))
    parser.add_argument("--seeds", type=int, default=5, help="runs of each method (%(default)s)")
    parser.add_argument("--scenes", type=int, default=1000, help="scenes of each test split (%(default)s)")
    parser.add_argument("--model", type=Path, default=CHECKPOINT, help="what is adapted; what ships if not given")
    parser.add_argument(
        "--zoom", type=int, default=0, help="proposals of each scene that are read a second time (%(default)s)"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=["test", "test_shifted", "test_third"])
    parser.add_argument("--quick", action="store_true", help="what ships, on the scenes that ship, in two minutes")
    parser.add_argument("--tables", type=Path, metavar="FILE", help="print the tables of a results.json, run nothing")
    options = parser.parse_args()
    if options.tables:
        print(tables(json.loads(options.tables.read_text(encoding="utf-8"))))
        return
    study = Study(
        options.output, num_seeds=options.seeds, num_scenes=options.scenes, model=options.model, zoom=options.zoom
    )
    if options.quick:
        print(quick(study))
        return
    results = {}
    for split in options.splits:
        results[split] = {method: _measured(study, method, split) for method in options.methods} | {
            f"{method}, perfect {oracle}": gathered(
                study.run(method, split, seed, oracle=oracle) for seed in _seeds(study, method)
            )
            for method in options.methods
            for oracle in ORACLES.get(method, ())
        }
        write_whole(options.output / f"results-zoom-{options.zoom}.json", json.dumps(results, indent=1) + "\n")
        if {"simo", "fisa"} <= set(options.methods):
            changes = study.class_gains(split, over="simo", of="fisa")
            draw_changes(changes, "IoU", names=("SIMO", "FISA")).savefig(
                options.output / f"gains-{split}.png", dpi=110
            )
    print(tables(results))


def quick(study: Study) -> str:
    """The shipped adapter beside the frozen model, on the shipped scenes."""
    text, place = "", study.folder / "quick" / f"zoom-{study.zoom}"
    for split in ("validation", "validation_shifted"):
        rows = {}
        for name, weights in (("frozen", {}), ("fisa", {"adapter": ADAPTER})):
            method = METHODS[name]
            found = study.evaluation(place / name / split, split, method, weights=weights)
            rows[method.title] = gathered([found])
        text += f"## {split}\n\n{table(rows, SHOWN)}\n\n"
    return text


def _seeds(study: Study, method: str) -> range:
    return study.seeds if METHODS[method].trains else range(1)


def _measured(study: Study, method: str, split: str) -> dict[str, list[float]]:
    def one(seed: int) -> dict[str, float]:
        costs = study.costs(method, seed) if METHODS[method].trains else {}
        return study.run(method, split, seed) | study.retention(method, seed) | costs

    return gathered(one(seed) for seed in _seeds(study, method))


if __name__ == "__main__":
    main()
