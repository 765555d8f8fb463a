"""What a person runs: `fisa-segment PHOTO… --labels "dog, grass, frisbee"` writes pictures and COCO panoptic files."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from contextlib import closing, nullcontext, redirect_stdout
from pathlib import Path
from typing import TextIO

import torch
from tqdm import tqdm
from transformers import pipeline

import fisa
from fisa.commands.options import (
    STANDARD_OUTPUT,
    add_others_option,
    add_vocabulary_options,
    available_device,
    load_parts,
    model_name,
    number_type,
    output_place,
    print_any_name,
    refuse_preset_alone,
    refused_in_a_line,
    stored_vocabulary,
)
from fisa.formats import FORMATS, require
from fisa.formats.json_lines import json_line
from fisa.labelling.data_sets import DatasetPhotos
from fisa.labelling.folders import Result, Summary, label_photos
from fisa.labelling.labeller import Labeller
from fisa.labelling.overlays import OVERLAY_FORMATS
from fisa.labelling.photo_search import ANNOTATIONS, find_photos
from fisa.labelling.processes import Processes, errors_only
from fisa.labelling.streaming import stream_photos
from fisa.pretrained.presets import PRESETS
from fisa.processing.downloads import DOWNLOAD_BYTES, DOWNLOAD_SECONDS
from fisa.processing.lettering import checked_font
from fisa.processing.one_line_parser import IN_QUOTES, OneLineParser
from fisa.processing.pipeline_fisa import SUBTASKS
from fisa.processing.segment import Segment


EXAMPLES = """examples:
  fisa-segment pretrained/scenes --labels "tiger, apple, headphones, sand [stuff], wood [stuff]"
  fisa-segment photo.jpg --model clip+mask2former --labels "dog, grass, frisbee"
  fisa-segment holiday/ "more/*.png" https://example.com/cat.jpg --model FOLDER --labels-file words.txt --output found
  fisa-segment street.jpg --model FOLDER --subtask semantic --labels "road [stuff], car, sky [stuff]"
  fisa-segment photo.jpg --model FOLDER --labels "dog" --others "cat, grass, sky" --min-score 0.3
  fisa-segment holiday/ --model FOLDER --labels "dog, grass" --format coco yolo
  fisa-segment --dataset photos.parquet --image-column image --model FOLDER --labels "dog, grass" --format parquet
  fisa-segment photos.txt "shards/*.tar" --model FOLDER --labels "dog, grass"
  fisa-segment holiday/ --model FOLDER --labels "dog, grass" --output - | jq .segments[].label

In a list of photos (.txt) a line is a file, a URL or a tar archive, whose photos are read from where they lie in it.
In a labels file a line is a class: its name, then synonyms, with commas between; [stuff] or [thing] may follow.
A .json file holds a list of names, a dictionary from names to synonyms, or COCO categories.
A run that was stopped or killed goes on when it is started again, and ends with the same files. Started by
`accelerate launch --multi_gpu --num_processes N -m fisa.commands.segment ...`, processes share the photos.
Exit status: 0 all done, 1 some photos were left out (the others are done), 2 a wrong argument, a folder that holds
other results or cannot be written to, 130 stopped by Ctrl-C (the photos until then are done), 141 nobody reads what
--output - prints.
"""


STOPPED, UNREAD = 130, 141  # by Ctrl-C, by a closed pipe: as shells count them

_fraction = number_type(float, lambda number: 0 <= number <= 1, "a number between 0 and 1")
_count = number_type(int, lambda number: number >= 0, "a whole number, 0 or more")
_positive = number_type(int, lambda number: number >= 1, "a whole number, 1 or more")
_limit = number_type(float, lambda number: 0 < number < math.inf, "a number greater than 0, and finite")


def main(arguments: Sequence[str] | None = None) -> int:
    """Segment photos as the command line says; returns the exit status."""
    try:
        parser = _parser()
        options = parser.parse_args(arguments)
        print_any_name()
        with errors_only() if options.quiet else nullcontext():
            return _run(parser, options)
    except KeyboardInterrupt:
        print("stopped before the first photo", file=sys.stderr)
        return STOPPED


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.output != STANDARD_OUTPUT:
        with Processes.started().warned_once():
            loaded = _loaded(parser, options)
        return _fill_folder(options, *loaded, parser=parser)
    lines = sys.stdout
    with redirect_stdout(sys.stderr):  # whatever a library has to say
        return _print_lines(options, *_loaded(parser, options), parser=parser, lines=lines)


def _loaded(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> tuple[Labeller, Sequence[str] | DatasetPhotos]:
    """What labels, and the photos; ends the process where an argument is wrong."""
    try:
        _check_output(options)
        photos = _photos(options)
        if options.vocabulary is None:
            refuse_preset_alone(options.model)
        labeller = Labeller(
            _segmenter(options),
            labels=options.vocabulary,
            batch_size=options.batch_size,
            text_cache=options.text_cache,
            zoom=options.zoom,
            subtask=options.subtask,
            threshold=options.threshold,
            timeout=options.timeout,
            max_download_bytes=int(options.max_download_bytes),
            min_score=options.min_score,
            **options.others,
        )
        if options.vocabulary is None:
            stored_vocabulary(labeller.pipeline.model.config)  # there may be none
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    return labeller, photos


def _photos(options: argparse.Namespace) -> Sequence[str] | DatasetPhotos:
    if bool(options.photos) == bool(options.dataset):
        raise ValueError("give photos or --dataset, one of them.")
    if options.dataset:
        return DatasetPhotos(options.dataset, split=options.split or "train", column=options.image_column or "image")
    if options.split or options.image_column:
        raise ValueError("--split and --image-column go with --dataset, which is missing: add it, or leave them out.")
    words = [photo for photo in options.photos if photo.isalpha() and not os.path.exists(photo)]
    if words and options.vocabulary is not None:
        raise ValueError(f"{', '.join(words)}: no such file. {IN_QUOTES}")
    return find_photos(options.photos, recursive=options.recursive)


def _check_output(options: argparse.Namespace) -> None:
    if options.output != STANDARD_OUTPUT:
        if options.font and options.no_overlay:
            raise ValueError(
                "--font is for the names on overlays, which --no-overlay leaves out: leave one of the two out."
            )
        formats = options.format
    elif options.format or options.overwrite or options.overlay_format or options.font:
        raise ValueError(
            "--output - prints and writes no files: leave out --format, --overwrite, --overlay-format and --font."
        )
    elif Processes.started().count > 1:
        raise ValueError("--output - prints the lines of one process; name a folder for those of several.")
    else:
        formats = ["jsonl"]
    for format in formats:
        require(format)


def _fill_folder(
    options: argparse.Namespace,
    labeller: Labeller,
    photos: Sequence[str] | DatasetPhotos,
    *,
    parser: argparse.ArgumentParser,
) -> int:
    total = _total(photos)
    is_silent = options.quiet or Processes.started().count > 1
    try:
        summary = label_photos(
            labeller,
            photos,
            options.output,
            overwrite=options.overwrite,
            formats=options.format,
            overlay_format=None if options.no_overlay else options.overlay_format or "jpg",
            font=options.font,
            report=(lambda result: None) if is_silent else _print_result,
            show_progress=False if options.quiet or total == 1 else None,
        )
    except KeyboardInterrupt:
        print(f"stopped; what was done until then: {options.output / ANNOTATIONS}", file=sys.stderr)
        return STOPPED
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"the results cannot be written: {error}")
    if summary is None:  # the first process speaks for all
        return 0
    if not options.quiet:
        _print_summary(summary, options.output / ANNOTATIONS)
    if is_silent:
        for source, reason in summary.skipped:
            print(_skipped(source, reason), file=sys.stderr)
    return _status([source for source, _ in summary.skipped])


def _print_lines(
    options: argparse.Namespace,
    labeller: Labeller,
    photos: Sequence[str] | DatasetPhotos,
    *,
    parser: argparse.ArgumentParser,
    lines: TextIO,
) -> int:
    skipped, total = [], _total(photos)
    bar = tqdm(desc="segmenting", total=total, unit="photo", disable=options.quiet or total == 1 or None)
    try:
        with bar, closing(stream_photos(labeller, photos)) as results:
            for result in results:
                if result.segmentation is not None:
                    lines.write(json_line(result.source, result.segmentation) + "\n")
                    lines.flush()
                else:
                    skipped.append(result.source)
                    tqdm.write(_skipped(result.source, result.reason), file=sys.stderr)
                bar.update()
    except KeyboardInterrupt:
        return STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), lines.fileno())  # or else Python complains at its end
        return UNREAD
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"the results cannot be written: {error}")
    return _status(skipped)


def _total(photos: Sequence[str] | DatasetPhotos) -> int | None:
    return photos.total if isinstance(photos, DatasetPhotos) else len(photos)


def _status(skipped: Sequence[str]) -> int:
    if skipped:
        print(f"not segmented: {', '.join(skipped)}", file=sys.stderr)
    return 1 if skipped else 0


def _skipped(source: str, reason: str | None) -> str:
    """What to say of a photo that was left out; most reasons name it."""
    is_named = reason is not None and (source in reason or repr(source) in reason)
    return f"skipped: {reason}" if is_named else f"skipped: {source}: {reason}"


def _print_result(result: Result) -> None:
    if result.segmentation is None:
        tqdm.write(_skipped(result.source, result.reason), file=sys.stderr)
        return
    pixels = result.segmentation.ids.numel()
    lines = [f"{result.source} -> {result.picture}"]
    lines += [_described(segment, pixels) for segment in result.segmentation]
    if result.not_found:
        lines.append(f"  not found: {', '.join(result.not_found)}")
    tqdm.write("\n".join(lines))


def _print_summary(summary: Summary, annotations: Path) -> None:
    segmented = summary.photos - summary.before
    print(f"{summary.done} of {summary.photos} photos segmented; COCO panoptic annotations: {annotations}")
    if summary.before:
        print(f"{summary.before} of them were done before")
    if segmented > 1:
        print(f"{segmented} photos in {summary.seconds:.1f} seconds, {segmented / summary.seconds:.2g} per second")
    if summary.photos > 1 and summary.classes:
        counts = (f"{name} ({photos})" for name, photos in summary.classes.most_common())
        print(f"found, and on how many photos: {', '.join(counts)}")


def _described(segment: Segment, pixels: int) -> str:
    score = "" if segment.score is None else f"{segment.score:5.2f}"
    return f"  {segment.label:<24} {score:>5}  {segment.area / pixels:6.1%} of the photo"


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="fisa-segment",
        description="Segment photos with any words.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_photo_options(parser.add_argument_group("photos"))
    _add_word_options(parser.add_argument_group("words"))
    _add_model_options(parser.add_argument_group("model"))
    _add_segment_options(parser.add_argument_group("segments"))
    _add_output_options(parser.add_argument_group("output"))
    parser.add_argument("--version", action="version", version=f"%(prog)s {fisa.__version__}")
    return parser


def _add_photo_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "photos", nargs="*", metavar="PHOTO", help="files, folders, patterns, URLs, tar archives or lists"
    )
    group.add_argument("--recursive", action="store_true", help="search subfolders too")
    group.add_argument(
        "--dataset",
        metavar="NAME",
        help="photos of a data set, as a stream: its name on the Hub, a folder, or a Parquet, Arrow, JSON or CSV file",
    )
    group.add_argument("--split", help="split of the data set (default: train)")
    group.add_argument(
        "--image-column",
        metavar="COLUMN",
        help="column of the data set with photos, or their paths or addresses (default: image)",
    )
    group.add_argument(
        "--timeout",
        type=_limit,
        default=DOWNLOAD_SECONDS,
        metavar="SECONDS",
        help="limit for each download, from start to end (default: %(default)g)",
    )
    group.add_argument(
        "--max-download-bytes",
        type=_limit,
        default=DOWNLOAD_BYTES,
        metavar="BYTES",
        help="limit for each download, decompressed (default: %(default)d)",
    )


def _add_word_options(group: argparse._ArgumentGroup) -> None:
    add_vocabulary_options(group.add_mutually_exclusive_group())
    add_others_option(group, default="auto; what is stored with the model, if its stored classes are looked for")
    group.add_argument(
        "--text-cache", metavar="FOLDER", help="keep the encoded classes here for the next run: for thousands of them"
    )


def _add_model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        type=model_name,
        help="folder or Hub name of a FISA model or adapter, or public parts put together: "
        f"{' or '.join(PRESETS)} (default: the small one that comes with the package, which knows Patchwork's "
        "pictograms and no photos)",
    )
    group.add_argument("--device", type=available_device, help="cpu, cuda, mps, … (default: the fastest there is)")
    group.add_argument(
        "--dtype",
        choices=("auto", "mixed", "float32", "bfloat16", "float16"),
        default="auto",
        help="mixed: CLIP's image tower in bfloat16, the mask generator as it is (default: as stored)",
    )
    group.add_argument(
        "--batch-size",
        type=_positive,
        metavar="N",
        help="photos at a time: on the CPU each by itself, elsewhere in one stack "
        "(default: on the CPU twice PyTorch's threads, 8 at most; elsewhere 8); halves when memory runs out",
    )


def _add_segment_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--subtask", choices=SUBTASKS, default="panoptic", help="kind of segmentation (default: %(default)s)"
    )
    group.add_argument(
        "--threshold", type=_fraction, help="least objectness of a segment, 0 to 1 (default: the model's)"
    )
    group.add_argument(
        "--min-score",
        type=_fraction,
        help="least score of a segment, 0 to 1: its probability among all words, times its objectness (default: the "
        "model's)",
    )
    group.add_argument(
        "--zoom",
        type=_count,
        metavar="N",
        help="look closer at the N likeliest masks of each photo: better names for small things, and slower "
        "(0: fast; default: the model's)",
    )


def _add_output_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--output",
        type=output_place,
        default="segments",
        help="folder for the results (default: %(default)s), or - for JSON lines on standard output, a photo per line",
    )
    group.add_argument(
        "--format",
        nargs="+",
        choices=list(FORMATS),
        default=[],
        metavar="NAME",
        help=f"write the results in further formats too: {', '.join(FORMATS)}",
    )
    overlays = group.add_mutually_exclusive_group()
    overlays.add_argument(
        "--overlay-format",
        choices=OVERLAY_FORMATS,
        help="format of the overlays, photos with their segments drawn over them: jpg is small and fast, png is exact "
        "(default: jpg)",
    )
    overlays.add_argument("--no-overlay", action="store_true", help="write only maps and annotations")
    group.add_argument(
        "--font",
        type=_font,
        metavar="FILE",
        help="font file for the names on the overlays; what it lacks comes from the fonts that ship (most scripts)",
    )
    group.add_argument(
        "--overwrite", action="store_true", help="replace the results that the folder holds, whatever their settings"
    )
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _font(text: str) -> str:
    return refused_in_a_line(checked_font, text)


def _segmenter(options: argparse.Namespace) -> fisa.FisaPipeline:
    dtype = "auto" if options.dtype in ("auto", "mixed") else getattr(torch, options.dtype)
    # Not by the pipeline, which would put the tracebacks of all its attempts into its error.
    model, processor = load_parts(options.model, dtype=dtype)
    # By its class, not by its own task name: a folder exported for the Hub brings code under that name, and would ask
    # for trust in what is installed here anyway.
    segmenter = pipeline(
        "image-segmentation",
        pipeline_class=fisa.FisaPipeline,
        device=options.device or _own_device(),
        dtype=dtype,
        model=model,
        processor=processor,
    )
    if options.dtype == "mixed":
        segmenter.model.config.classifier_dtype = "bfloat16"
    return segmenter


def _own_device() -> str | None:
    """Of several processes each has a GPU of its own, if there are any."""
    is_shared = Processes.started().count > 1 and torch.cuda.is_available()
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if is_shared else None


if __name__ == "__main__":
    sys.exit(main())
