"""What a person runs: `fisa-segment PHOTO… --labels "dog, grass, frisbee"` writes pictures and COCO panoptic files."""

import argparse
import glob
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import pipeline

import fisa
from fisa.commands.options import (
    OneLineParser,
    add_others_option,
    add_vocabulary_options,
    available_device,
    given_others,
    given_vocabulary,
    load_parts,
    model_name,
    output_folder,
    stored_vocabulary,
)
from fisa.data.categories import categories_of
from fisa.processing.coco_panoptic import CocoPanopticWriter
from fisa.processing.downloads import DOWNLOAD_BYTES, DOWNLOAD_SECONDS
from fisa.processing.files import written_whole
from fisa.processing.photos import load_photo
from fisa.processing.pipeline_fisa import SUBTASKS
from fisa.processing.segmentation import Segment, Segmentation
from fisa.processing.vocabulary import Vocabulary
from fisa.visualization import draw_segments


EXAMPLES = """examples:
  fisa-segment pretrained/scenes --labels "tiger, apple, headphones, sand [stuff], wood [stuff]"
  fisa-segment photo.jpg --model FOLDER --labels "dog, grass, frisbee"
  fisa-segment holiday/ "more/*.png" https://example.com/cat.jpg --model FOLDER --labels-file words.txt --output found
  fisa-segment street.jpg --model FOLDER --subtask semantic --labels "road [stuff], car, sky [stuff]"
  fisa-segment photo.jpg --model FOLDER --labels "dog" --others "cat, grass, sky" --min-score 0.3

In a labels file a line is a class: its name, then synonyms, with commas between; [stuff] or [thing] may follow.
A .json file holds a list of names, a dictionary from names to synonyms, or COCO categories.
Exit status: 0 all done, 1 some photos could not be read (the others are done), 2 a wrong argument,
130 stopped by Ctrl-C (the photos until then are done).
"""


_ADDRESSES = ("http://", "https://", "file://", "data:")


def main(arguments: Sequence[str] | None = None) -> int:
    """Segment photos as the command line says; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        words, others = given_vocabulary(options), given_others(options)
        photos = find_photos(options.photos)
        segmenter = _segmenter(options)
        vocabulary = words or stored_vocabulary(segmenter.model.config)
    except (OSError, ValueError, SafetensorError) as error:
        parser.error(str(error))
    writer = ResultWriter(options.output, vocabulary, names_missing=words is not None)
    try:
        with writer:
            unreadable = segment_photos(
                segmenter,
                photos,
                writer,
                candidate_labels=words,
                text_cache=options.text_cache,
                zoom=options.zoom,
                subtask=options.subtask,
                threshold=options.threshold,
                timeout=options.timeout,
                max_download_bytes=int(options.max_download_bytes),
                min_score=options.min_score,
                **others,
            )
    except KeyboardInterrupt:
        print(f"stopped; what was done until then: {writer.path}", file=sys.stderr)
        return 130  # as shells count it
    except OSError as error:
        parser.error(f"the results cannot be written: {error}")
    done = len(photos) - len(unreadable)
    print(f"{done} of {len(photos)} photos segmented; COCO panoptic annotations: {writer.path}")
    if unreadable:
        print(f"could not be read: {', '.join(unreadable)}", file=sys.stderr)
    return 1 if unreadable else 0


def segment_photos(
    segmenter: fisa.FisaPipeline,
    sources: Sequence[str],
    writer: "ResultWriter",
    *,
    timeout: float | None = None,
    max_download_bytes: int | None = None,
    **options: Any,
) -> list[str]:
    """Segment photos, write the results and print them on the way. While the model looks at one photo, the next is
    read and the results of the last one are written.

    Args:
        sources: paths or URLs.
        timeout, max_download_bytes: limits of each download.
        options: of the pipeline's call.

    Returns:
        The sources that could not be read.
    """
    unreadable = []
    # None: a bar on a terminal, none in a file
    bar = tqdm(sources, desc="segmenting", unit="photo", disable=True if len(sources) == 1 else None)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as recorder, bar:
        limits = {"timeout": timeout, "max_download_bytes": max_download_bytes}
        upcoming = (reader.submit(load_photo, source, **limits) for source in sources)
        coming, written = next(upcoming, None), None
        for source in sources:
            read, coming = coming, next(upcoming, None)
            assert read is not None  # one is submitted for each source
            try:
                photo = read.result()
            except (OSError, ValueError) as error:
                unreadable.append(source)
                tqdm.write(f"skipped: {error}", file=sys.stderr)
            else:
                segmentation = segmenter(photo, return_type="segmentation", **options)
                if written is not None:
                    tqdm.write(written.result())
                written = recorder.submit(_recorded, writer, source, photo, segmentation)
            bar.update()
        if written is not None:
            tqdm.write(written.result())
    return unreadable


def _recorded(writer: "ResultWriter", source: str, photo: Image.Image, segmentation: Segmentation) -> str:
    """Write a photo's results; returns what to print about them."""
    pixels = segmentation.ids.numel()
    lines = [f"{source} -> {writer.add(source, photo, segmentation)}"]
    lines += [_described(segment, pixels) for segment in segmentation]
    if writer.names_missing and segmentation.not_found:
        lines.append(f"  not found: {', '.join(segmentation.not_found)}")
    return "\n".join(lines)


def _described(segment: Segment, pixels: int) -> str:
    score = "" if segment.score is None else f"{segment.score:5.2f}"
    return f"  {segment.label:<24} {score:>5}  {segment.area / pixels:6.1%} of the photo"


def find_photos(places: Iterable[str]) -> list[str]:
    """Paths and URLs of the photos that the arguments name, in their order; within folders and patterns sorted.

    Raises:
        `ValueError`: a folder or pattern without a photo, or no place that is there. Some missing files among others
            are reported later, when they are read.
    """
    endings = set(Image.registered_extensions())
    photos: list[str] = []
    for place in places:
        is_folder = os.path.isdir(place)
        is_pattern = not is_folder and glob.has_magic(place) and not os.path.exists(place)
        if place.startswith(_ADDRESSES) or not (is_folder or is_pattern):
            photos.append(place)
            continue
        paths = Path(place).iterdir() if is_folder else map(Path, glob.glob(place, recursive=True))
        photo_paths = sorted(str(path) for path in paths if path.suffix.lower() in endings)
        if not photo_paths:
            raise ValueError(f"{place}: no photo found there; give files, folders with photos, patterns or URLs.")
        photos += photo_paths
    if not any(place.startswith(_ADDRESSES) or os.path.exists(place) for place in photos):
        raise ValueError(f"{', '.join(photos)}: no such file.")
    return photos


class ResultWriter:
    """Writes an overlay picture and a COCO panoptic PNG per photo, and `panoptic.json` for all of them on leaving.

    Args:
        folder: made if it is not there.
        vocabulary: what was looked for.
        names_missing: whether each photo's annotation says which words were `not_found`.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary, *, names_missing: bool = False):
        self.folder, self.names_missing = folder, names_missing
        categories = [category.to_dict() for category in categories_of(vocabulary, first_id=1)]
        self._category_ids = [category["id"] for category in categories]
        self._files = CocoPanopticWriter(folder / "panoptic.json", categories)

    @property
    def path(self) -> Path:
        """Of the JSON file."""
        return self._files.path

    def add(self, source: str, photo: Image.Image, segmentation: Segmentation) -> Path:
        """Write one photo's results; returns the path of the overlay picture."""
        stem = self._files.add(
            len(self._files.entries) + 1,
            file_name=source,
            stem=Path(source.split("?")[0]).stem.strip(".") or "photo",
            further={"not_found": list(segmentation.not_found)} if self.names_missing else {},
            **segmentation.to_panoptic(self._category_ids),
        )
        overlay = self.folder / f"{stem}_overlay.png"
        with written_whole(overlay) as aside:
            draw_segments(photo, segmentation).save(aside, format="PNG")
        return overlay

    def __enter__(self) -> "ResultWriter":
        return self

    def __exit__(self, *error: Any) -> None:
        # After an error too, so that the results so far are kept.
        self._files.close()


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="fisa-segment",
        description="Segment photos with any words.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="files, folders, patterns or URLs")
    parser.add_argument(
        "--model",
        type=model_name,
        help="folder or Hub name of a FISA model or adapter (default: the small one that comes with the package, "
        "which knows Patchwork's pictograms and no photos)",
    )
    add_vocabulary_options(parser.add_mutually_exclusive_group())
    add_others_option(parser, default="auto; what is stored with the model, if its stored classes are looked for")
    parser.add_argument(
        "--text-cache", metavar="FOLDER", help="keeps the encoded classes for the next run: for thousands of them"
    )
    parser.add_argument("--subtask", choices=SUBTASKS, default="panoptic")
    parser.add_argument(
        "--threshold", type=_fraction, help="least objectness of a segment, 0 to 1 (default: the model's)"
    )
    parser.add_argument(
        "--min-score",
        type=_fraction,
        help="least score of a segment, 0 to 1: its probability among all words, times its objectness (default: the "
        "model's)",
    )
    parser.add_argument(
        "--zoom",
        type=_count,
        metavar="N",
        help="look closer at the N likeliest masks of each photo: better names for small things, and slower "
        "(0: fast; default: the model's)",
    )
    parser.add_argument(
        "--timeout",
        type=_limit,
        default=DOWNLOAD_SECONDS,
        metavar="SECONDS",
        help="for each download, from start to end (default: %(default)g)",
    )
    parser.add_argument(
        "--max-download-bytes",
        type=_limit,
        default=DOWNLOAD_BYTES,
        metavar="BYTES",
        help="of each download, decompressed (default: %(default)d)",
    )
    parser.add_argument("--device", type=available_device, help="cpu, cuda, mps, … (default: the fastest there is)")
    parser.add_argument(
        "--dtype",
        choices=("auto", "mixed", "float32", "bfloat16", "float16"),
        default="auto",
        help="mixed: CLIP's image tower in bfloat16, the mask generator as it is (default: as stored)",
    )
    parser.add_argument(
        "--output", type=output_folder, default="segments", help="folder for the results (default: %(default)s)"
    )
    return parser


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


def _limit(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
    return value


def _segmenter(options: argparse.Namespace) -> fisa.FisaPipeline:
    dtype = "auto" if options.dtype in ("auto", "mixed") else getattr(torch, options.dtype)
    # Not by the pipeline, which would put the tracebacks of all its attempts into its error.
    model, processor = load_parts(options.model, dtype=dtype)
    # By its class, not by its own task name: a folder exported for the Hub brings code under that name, and would ask
    # for trust in what is installed here anyway.
    segmenter = pipeline(
        "image-segmentation",
        pipeline_class=fisa.FisaPipeline,
        device=options.device,
        dtype=dtype,
        model=model,
        processor=processor,
    )
    if options.dtype == "mixed":
        segmenter.model.config.classifier_dtype = "bfloat16"
    return segmenter


if __name__ == "__main__":
    sys.exit(main())
