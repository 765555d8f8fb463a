"""Two evaluations side by side: `python -m fisa.evaluation.report A/metrics.json B/metrics.json`.

Writes a table of the headline figures, the classes that changed most, and photos with their ground truth and both
predictions, like figures 3 and 5 of the paper.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from fisa.evaluation.headlines import headlines
from fisa.evaluation.samples import Sample, read_samples
from fisa.processing.drawing import FAINT_INK, INK, PAPER, draw_legend
from fisa.processing.lettering import FONTS, Lettering
from fisa.processing.one_line_parser import OneLineParser
from fisa.processing.palette import Color, class_colors
from fisa.processing.segmentation import Segmentation
from fisa.visualization import paint_segments


# Where a report has figures per class; the first that both evaluations have is shown.
PER_CLASS = (("semantic", "iou", "IoU"), ("panoptic", "pq", "PQ"), ("instance", "ap", "mask AP"))
SHOWN_CLASSES = 24
GAIN, LOSS = "#2a78b5", "#d1603d"  # colour-blind people can tell them apart
PANEL_WIDTH, GAP = 420, 14


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: its display name, the content of its `metrics.json`, and the folder of that file."""

    name: str
    report: dict[str, Any]
    folder: Path

    @classmethod
    def read(cls, path: Path, *, name: str) -> "Evaluation":
        """Read a `metrics.json`.

        Raises:
            ValueError: the file is not the report of an evaluation; the message says why.
        """
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not a JSON file: {error}") from error
        if not isinstance(report, dict) or not headlines(report):
            raise ValueError(f"{path}: holds no figures; name the metrics.json that train.py --do_eval writes.")
        return cls(name, report, path.parent)


def main(arguments: Sequence[str] | None = None) -> Path:
    """Write the report; returns its folder."""
    parser = OneLineParser(
        prog="python -m fisa.evaluation.report", description="Compare two evaluations of train.py --do_eval."
    )
    parser.add_argument("metrics", nargs=2, type=Path, metavar="METRICS.json", help="of A and of B")
    parser.add_argument(
        "--names", nargs=2, metavar=("A", "B"), help="what to call them (default: the names of their folders)"
    )
    parser.add_argument("--output", type=Path, default=Path("report"), help="folder for the report (%(default)s)")
    options = parser.parse_args(arguments)
    names = options.names or [path.resolve().parent.name for path in options.metrics]
    try:
        before, after = (Evaluation.read(path, name=name) for path, name in zip(options.metrics, names))
        write_report(before, after, options.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"Wrote {', '.join(str(path) for path in sorted(options.output.iterdir()))}")
    return options.output


def write_report(before: Evaluation, after: Evaluation, folder: Path) -> None:
    """Write `report.md`, `per_class.png` and, where both evaluations kept samples, `side_by_side.png`.

    Raises:
        ValueError: the evaluations are of different data and cannot be compared.
    """
    for key in ("data", "num_images"):
        if before.report.get(key) != after.report.get(key):
            raise ValueError(
                f"The two evaluations are not of the same photos: {key} is {before.report.get(key)!r} in the first, "
                f"{after.report.get(key)!r} in the second."
            )
    folder.mkdir(parents=True, exist_ok=True)
    changes, measure = class_changes(before.report, after.report)
    text = headline_table(before, after)
    if changes:
        draw_changes(changes, measure, names=(before.name, after.name)).savefig(folder / "per_class.png", dpi=150)
        text += f"\n## {measure} by class\n\n![{measure} by class](per_class.png)\n"
    samples = [evaluation.folder / "samples" for evaluation in (before, after)]
    if all(path.is_dir() for path in samples):
        pairs = _pairs(*samples)
        draw_side_by_side(pairs, names=(before.name, after.name)).save(folder / "side_by_side.png")
        text += "\n## Photos\n\n![photo, ground truth and both predictions](side_by_side.png)\n"
    (folder / "report.md").write_text(text, encoding="utf-8")


def class_changes(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[tuple[str, float]], str]:
    """The classes that changed most, from the largest gain to the largest loss.

    Returns:
        At most `SHOWN_CLASSES` class names with their changes, in points, and the name of the measure.
    """
    for task, key, measure in PER_CLASS:
        if task in before and task in after:
            old, new = before[task]["per_class"], after[task]["per_class"]
            pairs = ((name, old[name][key], new[name][key]) for name in old if name in new)
            changes = [(name, b - a) for name, a, b in pairs if a is not None and b is not None and a != b]
            largest = sorted(changes, key=lambda change: -abs(change[1]))[:SHOWN_CLASSES]
            return sorted(largest, key=lambda change: -change[1]), measure
    return [], ""


def headline_table(before: Evaluation, after: Evaluation) -> str:
    """The headline figures in Markdown."""
    old, new = headlines(before.report), headlines(after.report)
    rows = [
        f"| {name} | {old[name]:.2f} | {new[name]:.2f} | {new[name] - old[name]:+.2f} |" for name in old if name in new
    ]
    oracles = [evaluation.report.get("oracle", "none") for evaluation in (before, after)]
    titles = [
        evaluation.name if oracle == "none" else f"{evaluation.name} (oracle: {oracle})"
        for evaluation, oracle in zip((before, after), oracles)
    ]
    known = [
        f"{evaluation.name} was trained on {evaluation.report['trained_on']} of them."
        for evaluation in (before, after)
        if "trained_on" in evaluation.report
    ]
    head = [
        f"# {before.name} and {after.name}",
        "",
        " ".join([f"On {after.report['num_images']} photos of {after.report['data']}, in percent.", *known]),
        "",
        f"| | {titles[0]} | {titles[1]} | change |",
        "|---|---:|---:|---:|",
    ]
    return "\n".join([*head, *rows]) + "\n"


def draw_changes(changes: Sequence[tuple[str, float]], measure: str, *, names: tuple[str, str]) -> Figure:
    """One bar per class: how much it gained or lost."""
    figure = Figure(figsize=(7.5, 1.3 + 0.27 * len(changes)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    families = _font_families()
    values = [change for _, change in changes]
    bars = axes.barh(range(len(changes)), values, height=0.72, color=[GAIN if value > 0 else LOSS for value in values])
    axes.bar_label(bars, labels=[f"{value:+.1f}" for value in values], padding=3, fontsize=8, color="#444444")
    axes.set_yticks(range(len(changes)), [name for name, _ in changes], fontsize=9, fontfamily=families)
    axes.invert_yaxis()
    axes.axvline(0, color="#444444", linewidth=0.8)
    axes.margins(x=0.12)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"change of {measure}, in points", fontsize=9)
    axes.set_title(
        f"{names[1]} against {names[0]}: the classes that changed most", fontsize=10, loc="left", fontfamily=families
    )
    return figure


def _font_families() -> list[str]:
    """For names of any script: matplotlib takes each character from the first that has it."""
    families = ["DejaVu Sans"]
    for path in sorted(FONTS.glob("*.ttf")):
        font_manager.fontManager.addfont(path)
        families.append(font_manager.get_font(path).family_name)
    return families


def draw_side_by_side(pairs: Sequence[tuple[Sample, Sample]], *, names: tuple[str, str]) -> Image.Image:
    """One row per photo: photo, ground truth, both predictions; below them the colours of the classes shown."""
    letters = Lettering(16)
    samples = [sample for pair in pairs for sample in pair]
    labels = sorted({segment.label for sample in samples for segment in (*sample.truth, *sample.prediction)})
    colors = class_colors(labels, asked=labels)
    rows = [
        [
            _panel_photo(first.photo),
            *(_panel(first.photo, part, colors) for part in (first.truth, first.prediction, second.prediction)),
        ]
        for first, second in pairs
    ]
    width = 4 * PANEL_WIDTH + 5 * GAP
    title_height = 2 * letters.size
    legend = draw_legend(colors, letters=letters, width=width) if labels else Image.new("RGB", (width, GAP), PAPER)
    height = title_height + sum(row[0].height + GAP for row in rows) + legend.height
    sheet = Image.new("RGB", (legend.width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(("photo", "ground truth", *names)):
        x = GAP + column * (PANEL_WIDTH + GAP)
        title_line = letters.line(title, width=PANEL_WIDTH)
        title_line.draw(draw, (x, title_height / 2), FAINT_INK if column == 0 else INK)
    y = title_height
    for row in rows:
        for column, panel in enumerate(row):
            sheet.paste(panel, (GAP + column * (PANEL_WIDTH + GAP), y))
        y += row[0].height + GAP
    sheet.paste(legend, (0, y))
    return sheet


def _panel_photo(photo: Image.Image) -> Image.Image:
    size = PANEL_WIDTH, max(1, round(photo.height * PANEL_WIDTH / photo.width))
    return photo.resize(size, Image.Resampling.LANCZOS)


def _panel(photo: Image.Image, segmentation: Segmentation, colors: Mapping[str, Color]) -> Image.Image:
    panel = _panel_photo(photo)
    return paint_segments(panel, segmentation.resized(panel.size), colors=colors)


def _pairs(before: Path, after: Path) -> list[tuple[Sample, Sample]]:
    first = {sample.image_id: sample for sample in read_samples(before)}
    return [(first[sample.image_id], sample) for sample in read_samples(after) if sample.image_id in first]


if __name__ == "__main__":
    main()
