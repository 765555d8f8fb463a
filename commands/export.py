"""`fisa-export`: takes a model out of Python, by `fisa.export`."""

import argparse
import sys
from collections.abc import Sequence

import torch

from fisa.commands.options import (
    add_others_option,
    add_vocabulary_options,
    load_parts,
    model_name,
    output_folder,
    print_any_name,
    refuse_preset_alone,
    stored_vocabulary,
)
from fisa.export import FILES, check_export, export_program, save
from fisa.pretrained.presets import PRESETS
from fisa.processing.one_line_parser import OneLineParser


EXAMPLES = """examples:
  fisa-export --output patchwork-onnx
  fisa-export FOLDER --labels "dog, grass, frisbee" --output my-onnx
  fisa-export FOLDER --open --format torch --output my-graph

Exit status: 0 done, 2 a wrong argument.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Export as the command line says; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    print_any_name()
    try:
        vocabulary, others = options.vocabulary, options.others
        if others and options.open:
            raise ValueError("--others are built into a graph with its classes; with --open they are an input.")
        if vocabulary is None and not options.open:
            refuse_preset_alone(options.model)
        model, processor = load_parts(options.model, dtype=torch.float32)
        if others and vocabulary is None:
            vocabulary = stored_vocabulary(model.config)
        if vocabulary is not None:
            model.set_vocabulary(processor, vocabulary, **others)
        check_export(model, processor, options.output, file_format=options.format, eight_bits=options.int8)
        print("Tracing the graph takes a minute, with large models some minutes.", file=sys.stderr)
        program = export_program(model, processor, open_vocabulary=options.open)
        path = save(program, model, processor, options.output, file_format=options.format, eight_bits=options.int8)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{path}, with its processor and config beside it")
    zoom = processor.image_processor.zoom
    if zoom:
        print(f"It reads each mask once, as `zoom=0` does; the model, with `zoom={zoom}`, names small things better.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="fisa-export",
        description="Export a model as one graph.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        type=model_name,
        help="folder or Hub name of a FISA model or adapter, or public parts put together: "
        f"{' or '.join(PRESETS)} (default: the small one that comes with the package)",
    )
    parser.add_argument("--format", choices=tuple(FILES), default="onnx", help="kind of graph (default: %(default)s)")
    parser.add_argument(
        "--int8", action="store_true", help="round weights of an ONNX graph to eight bits: smaller, and faster on CPUs"
    )
    words = parser.add_mutually_exclusive_group()
    add_vocabulary_options(words)
    words.add_argument("--open", action="store_true", help="leave the classes open: their texts are an input")
    add_others_option(parser, default="none; what is stored with the model, if its stored classes are built in")
    parser.add_argument(
        "--output", required=True, metavar="FOLDER", type=output_folder, help="for the graph and its processor"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
