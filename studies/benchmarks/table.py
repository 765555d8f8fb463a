"""The tables of costs in docs/benchmarks.md, from lines that the benchmarks printed:
`python -m fisa.studies.benchmarks.table`.

Lines are collected in `docs/benchmarks.jsonl`, as
`python -m fisa.studies.benchmarks.NAME >> docs/benchmarks.jsonl` does.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple


ROOT = Path(__file__).parents[2]
LINES = ROOT / "docs" / "benchmarks.jsonl"
HEADLINES = (
    "100 masks and 150 classes beside plain CLIP, clip-vit-large-patch14-336",
    "a photo; transformers' own generator and plain CLIP alone",
    "`fisa-segment --batch-size 4`, 12 photos, 2 cores; the model alone",
    "`fisa-segment --batch-size 1`, 6 photos, 2 cores and 2 processes; the model alone",
    "a photo; CLIPSeg, 150 names",
    "a photo; SAM 3 with one name, FISA with 150",
    "semantic maps, 847 classes, 1080 × 1920, masks of segments; transformers' own",
    "panoptic maps, 150 classes, 1080 × 1920, masks of segments; transformers' own",
    "panoptic maps, 150 classes, 1080 × 1920, masks of noise; transformers' own",
    "a training step from the cache, clip-vit-large-patch14-336; training the generator too (mask2former-swin-tiny at "
    "1088 pixels)",
    "evaluating a photo of 640 × 480; the model alone",
    "PQ of an image, 5,000 of them; panopticapi's protocol in NumPy",
    "CLIP ViT-B/16's image tower, bfloat16; float32",
)
"""The rows of the short table: for each part, the case that most users will meet."""

HEAD = "| what | here | beside it | |\n|---|---:|---:|---|"


class Row(NamedTuple):
    """One measurement: what was done, seconds of this package and of the other side, and what they come to."""

    what: str
    ours: float
    theirs: float
    verdict: str


def mask_classification(line: dict[str, Any]) -> Row:
    what = f"{line['proposals']} masks and {line['classes']:,} classes beside plain CLIP, {line['architecture']}"
    verdict = f"{line['ratio']:.2f} × the time, {line['flops_ratio']:.2f} × the operations"
    return Row(what, line["fisa_seconds"], line["clip_seconds"], verdict)


def post_processing(line: dict[str, Any]) -> Row:
    if "growth" in line:
        what = f"semantic maps of {line['classes']:,} classes; of {line['fewer_classes']}, masks of {line['masks']}"
        verdict = f"{line['growth']:.1f} × the time, {line['gigabytes']:.2f} GB against {line['fewer_gigabytes']:.2f}"
        return Row(what, line["seconds"], line["fewer_seconds"], verdict)
    what = f"{line['task']} maps, {line['classes']} classes, 1080 × 1920, masks of {line['masks']}; transformers' own"
    verdict = f"{line['ratio']:.1f} × as fast, {line['ours_gigabytes']:.2f} GB against {line['theirs_gigabytes']:.2f}"
    return Row(what, line["ours_seconds"], line["theirs_seconds"], verdict)


def end_to_end(line: dict[str, Any]) -> Row | list[Row]:
    if line["case"] == "parts":
        ours, theirs, clip = (line[f"{side}_seconds"] for side in ("summed_generator", "generator", "clip"))
        whole = "a photo; transformers' own generator and plain CLIP alone"
        return [
            Row(whole, line["fisa_seconds"], theirs + clip, f"{line['over_generator_and_clip']:.2f} × the time"),
            Row("the generator's part of it; transformers' own", ours, theirs, f"{theirs / ours:.2f} × as fast"),
        ]
    if "fewer_seconds" in line:
        return Row(line["case"], line["seconds"], line["fewer_seconds"], f"{line['ratio']:.2f} × the time")
    rival = line.get("clipseg_seconds", line.get("sam3_seconds"))
    return Row(f"a photo; {line['case']}", line["fisa_seconds"], rival, f"{line['ratio']:.1f} × as fast")


def labelling(line: dict[str, Any]) -> list[Row]:
    if line["batch_size"] is None:
        return []
    cores = "one core" if line["cores"] == 1 else f"{line['cores']} cores"
    processes = "" if line["processes"] == 1 else f" and {line['processes']} processes"
    command = f"`fisa-segment --batch-size {line['batch_size']}`, {line['photos']} photos"
    return [
        Row(
            f"{command}, {cores}{processes}; the model alone",
            line["seconds"],
            line["model_seconds"],
            f"{line['throughput']:.2f} of the model's throughput, {line['times_one_core']:.2f} × that of one core",
        )
    ]


def exports(line: dict[str, Any]) -> Row:
    what = f"{line['photos']} scene(s) of Patchwork by ONNX Runtime; eager"
    verdict = f"{1 / line['onnx_ratio']:.1f} × as fast; torch.export {1 / line['torch_ratio']:.1f} ×"
    return Row(what, line["onnx_seconds"], line["eager_seconds"], verdict)


def precision(line: dict[str, Any]) -> list[Row]:
    if line["way"] == "float32":
        return []
    kept = "" if line["agreement"] is None else f", {line['agreement']:.1%} of Patchwork's labels kept"
    what = f"CLIP ViT-B/16's {line['tower']} tower, {line['way']}; float32"
    return [Row(what, line["seconds"], line["float32_seconds"], f"{line['ratio']:.2f} × as fast{kept}")]


def evaluation_loop(line: dict[str, Any]) -> Row:
    what = "evaluating a photo of 640 × 480; the model alone"
    verdict = f"{line['other_share']:.1%} outside the model"
    return Row(what, line["loop_cpu_seconds"], line["model_cpu_seconds"], verdict)


def panoptic_quality(line: dict[str, Any]) -> Row:
    what = f"PQ of an image, {line['images']:,} of them; panopticapi's protocol in NumPy"
    return Row(what, line["fisa_cpu_seconds"], line["numpy_cpu_seconds"], f"{line['times_faster']:.1f} × as fast")


def training_cost(line: dict[str, Any]) -> list[Row]:
    sides = {
        "generator_in_loop": "with the generator in the loop",
        "together": "training the generator too",
        "full": "fine-tuning all of the image tower",
    }
    generator = f" ({line['mask_generator'].split('-coco')[0]} at {line['generator_view'][1]} pixels)"
    return [
        Row(
            f"a training step from the cache, {line['clip']}; {title}{'' if side == 'full' else generator}",
            line["cache"]["cpu_seconds"],
            line[side]["cpu_seconds"],
            f"{line[f'{side}_over_cache']['cpu_seconds']:.1f} × cheaper, memory × "
            f"{line[f'{side}_over_cache']['memory']:.1f}",
        )
        for side, title in sides.items()
    ]


def absent_words(line: dict[str, Any]) -> list[Row]:
    if line.get("case") != "time":
        return []
    alone = line["none_seconds"]
    sides = {"known": "the words that the model knows", "everyday": "these and the everyday list"}
    return [
        Row(
            f"three words in a scene of Patchwork beside {title}; alone",
            line[f"{others}_seconds"],
            alone,
            f"{line[f'{others}_seconds'] / alone:.2f} × the time",
        )
        for others, title in sides.items()
    ]


def zoom(line: dict[str, Any]) -> list[Row]:
    if not line["zoom"] or line.get("model") == "frozen" or line.get("split") == "validation_shifted":
        return []  # what nothing is compared with, and the same costs once more
    if "architecture" in line:
        what = f"{line['zoom']} of {line['proposals']} masks read again, CLIP alone, {line['architecture']}; none"
        verdict = f"{line['ratio']:.2f} × the time, {line['flops_ratio']:.2f} × the operations"
    else:
        what, verdict = f"a scene of Patchwork, `zoom={line['zoom']}`; 0", f"{line['ratio']:.2f} × the time"
    return [Row(what, line["cpu_seconds"], line["cpu_seconds"] / line["ratio"], verdict)]


def large_photo(line: dict[str, Any]) -> list[Row]:
    what = f"{line['segments']} segments over {line['megapixels']:.0f} megapixels"
    png = line["seconds"] - line["write_jpg_seconds"] + line["write_png_seconds"]
    sizes = f"{line['jpg_megabytes']:.1f} MB against {line['png_megabytes']:.1f}"
    return [
        Row(
            f"a picture of {what}; supervision's masks and labels",
            line["draw_seconds"],
            line["supervision_seconds"],
            f"{line['ratio']:.1f} × as fast",
        ),
        Row(f"all beside the model, {what}; with a PNG overlay", line["seconds"], png, sizes),
    ]


READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    reader.__name__: reader
    for reader in (
        mask_classification,
        end_to_end,
        labelling,
        post_processing,
        training_cost,
        evaluation_loop,
        panoptic_quality,
        exports,
        precision,
        absent_words,
        zoom,
        large_photo,
    )
}


def rows(lines: Iterable[dict[str, Any]]) -> list[Row]:
    """The measurements of the lines that are comparisons, in the order of `READERS`."""
    lines = list(lines)
    read = [READERS[name](line) for name in READERS for line in lines if line["benchmark"] == name]
    return [row for item in read for row in (item if isinstance(item, list) else [item])]


def table(measured: Iterable[Row]) -> str:
    """The rows in Markdown."""
    cells = [f"| {row.what} | {_seconds(row.ours)} | {_seconds(row.theirs)} | {row.verdict} |" for row in measured]
    return "\n".join([HEAD, *cells])


def headlines(measured: Iterable[Row]) -> list[Row]:
    """The rows of the short table."""
    by_name = {row.what: row for row in measured}
    return [by_name[what] for what in HEADLINES]


def recorded() -> list[Row]:
    """The measurements that are kept in `docs/benchmarks.jsonl`."""
    return rows(map(json.loads, LINES.read_text(encoding="utf-8").splitlines()))


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def main() -> None:
    """Print both tables, the short one first."""
    measured = recorded()
    print(table(headlines(measured)), table(measured), sep="\n\n")


if __name__ == "__main__":
    main()
