"""A page in the browser: `fisa-app`, or this file as it is in a Space of the Hub."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from transformers import pipeline

from fisa.commands.demo import FEW_LABELS, STUFF, THINGS
from fisa.commands.options import available_device, load_parts, model_name, number_type
from fisa.pretrained.patchwork import SCENES
from fisa.pretrained.presets import PRESETS
from fisa.processing.extras import library
from fisa.processing.one_line_parser import OneLineParser
from fisa.processing.pipeline_fisa import FisaPipeline


LARGEST_UPLOAD = "30mb"
SHIPPED = (
    "The model that comes with FISA knows Patchwork, a small world of pictograms, and no photos. For these, start "
    "`fisa-app --model clip+mask2former`, or give a model of your own."
)
OTHER = "The model is `{name}`."
MANY_WORDS = ", ".join([*THINGS, *(f"{name} [stuff]" for name in STUFF)])
EXAMPLES = (
    (SCENES / "easy.jpg", FEW_LABELS),
    (SCENES / "shifted.jpg", MANY_WORDS),
    (SCENES / "hard.jpg", MANY_WORDS),
)
_port = number_type(int, lambda number: 0 < number < 2**16, "a port, 1 to 65535")
ZOOM = 8  # with the shipped model it costs little


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C or SIGTERM; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        library("gradio", extra="app", purpose="The page")
        from fisa.page.layout import CSS, THEME, page_of  # Gradio is an extra

        model, processor = load_parts(options.model, dtype="auto")
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    segmenter = pipeline(
        "image-segmentation", model, processor=processor, pipeline_class=FisaPipeline, device=options.device
    )
    is_shipped = options.model is None
    with _own_uploads():
        page = page_of(
            segmenter,
            about=SHIPPED if is_shipped else OTHER.format(name=options.model),
            examples=EXAMPLES if is_shipped else (),
            zoom=ZOOM if is_shipped else processor.image_processor.zoom,
        )
        try:
            page.launch(
                server_name=options.host,
                server_port=options.port,
                inbrowser=options.open,
                max_file_size=LARGEST_UPLOAD,
                show_error=True,
                ssr_mode=False,
                run_history=False,
                footer_links=[],
                theme=THEME,
                css=CSS,
            )
        except OSError as error:
            parser.error(str(error))
    return 0


@contextmanager
def _own_uploads() -> Iterator[None]:
    """A folder for what Gradio stores, which is gone with the server. Gradio would delete nothing while a browser is
    open, and SIGTERM, which ends services, would end it at once."""
    place = os.environ.get("GRADIO_TEMP_DIR") or None
    if place is not None:
        os.makedirs(place, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with TemporaryDirectory(prefix="fisa-app-", dir=place, ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="fisa-app", description="Serve a page that segments photos with any words.")
    parser.add_argument(
        "--model",
        type=model_name,
        default=os.environ.get("FISA_MODEL"),
        help=f"folder or Hub name of a FISA model or adapter, or {' or '.join(PRESETS)} (default: the small one that "
        "comes with the package, or what FISA_MODEL says)",
    )
    parser.add_argument("--device", type=available_device, help="cpu, cuda, mps, … (default: the fastest there is)")
    parser.add_argument("--host", help="address to listen on; 0.0.0.0 for other machines too (default: this machine)")
    parser.add_argument("--port", type=_port, help="port to listen on (default: 7860, or the next that is free)")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    return parser


if __name__ == "__main__":
    sys.exit(main())
