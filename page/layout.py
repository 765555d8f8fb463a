"""How the page looks, and what its parts do."""

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder, is_in_or_equal
from gradio_client.utils import is_http_url_like

from fisa.formats.json_lines import json_line
from fisa.page.answers import SHOWN_SIDE, Places, Question, Refused, answer, described
from fisa.page.downloads import write_downloads
from fisa.processing.pipeline_fisa import SUBTASKS, FisaPipeline


KEPT_SECONDS = 600  # uploads, and what was made of them
CHECK_SECONDS = 60
MOST_WAITING = 100  # questions
MOST_ZOOM = 24
DOWNLOADS = ("Picture", "COCO", "YOLO")  # in the order of `write_downloads`
SHOWN_PARTS = 4 + len(DOWNLOADS)  # of an answer

TITLE = "Segment a photo with any words"
HINT = "Choose a photo, name what to look for, and press “Find segments”."
THEME = gr.themes.Default(
    primary_hue="teal",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],  # nothing is fetched from elsewhere
    font_mono=["ui-monospace", "monospace"],
).set(
    # dark enough on white for everybody
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    body_text_color_subdued="*neutral_600",
    input_placeholder_color="*neutral_500",
)
CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
#title h1 { font-size: 1.7rem; margin: 0.4rem 0 0.1rem; }
#segments img { cursor: crosshair; }
.or { color: var(--body-text-color-subdued) !important; }
footer { display: none !important; }
"""


def page_of(
    segmenter: FisaPipeline,
    *,
    about: str,
    examples: Sequence[tuple[Path, str]] = (),
    zoom: int = 0,
) -> gr.Blocks:
    """The page of a model, to be launched.

    Programs ask the same server: `gradio_client.Client(address).predict(handle_file("photo.jpg"), "dog, grass",
    "panoptic", 0.5, 0, api_name="/segment")` returns what [`json_line`] says, the words that were `not_found`, and
    those that were `left_out`, which are stuff where the task is instances.

    Args:
        segmenter ([`FisaPipeline`])
        about (`str`): what the model knows, in a sentence or two of Markdown.
        examples (`Sequence[tuple[Path, str]]`): photos, and words to look for on them.
        zoom (`int`): where the dial stands at first.

    Example:

    ```python
    >>> page_of(segmenter, about="It knows pictograms.").launch(theme=THEME, css=CSS)
    ```
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CHECK_SECONDS, KEPT_SECONDS)) as page:
        gr.Markdown(f"# {TITLE}\n\n{about}", elem_id="title")
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                question = _question(segmenter, zoom=zoom)
                button = gr.Button("Find segments", variant="primary")
            with gr.Column(scale=7, min_width=320):
                notice = gr.Textbox(HINT, show_label=False, label="Notice", interactive=False, elem_id="notice")
                with gr.Column(visible=False) as found:
                    shown = _shown()
        if examples:
            gr.Examples([[str(photo), words] for photo, words in examples], question[:2], label="Examples")
        places = gr.State(None, time_to_live=KEPT_SECONDS)
        gr.on(
            [button.click, question[1].submit],
            lambda *asked: _answered(segmenter, Question(*asked)),
            question,
            [notice, found, *shown, places],
            api_visibility="private",
        )
        shown[0].select(_named, places, shown[1], api_visibility="private", queue=False, show_progress="hidden")
        gr.Button(visible=False).click(
            # Programs see the names of these arguments.
            lambda photo, words, task, threshold, zoom: _as_json(
                segmenter, Question(photo, words or "", task, threshold, zoom)
            ),
            question,
            gr.JSON(visible=False),
            api_name="segment",
        )
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=1)
    return page


def _question(segmenter: FisaPipeline, *, zoom: int) -> list[Any]:
    photo = gr.Image(
        label="Photo", sources=["upload", "clipboard", "webcam"], type="filepath", image_mode=None, height=300
    )
    photo.preprocess = _as_it_came  # type: ignore[method-assign]  # Gradio's own would open it first
    photo.async_move_resource_to_block_cache = partial(_uploaded, photo)  # type: ignore[method-assign]
    words = gr.Textbox(
        label="Words", placeholder="dog, frisbee, grass [stuff]", info="With commas between", elem_id="words", lines=2
    )
    known = [name for name, *_ in segmenter.model.config.class_names]
    if known:
        chosen = gr.Dropdown(sorted(known), value=None, label="Or choose a word that the model knows")
        chosen.input(_with_word, [words, chosen], [words, chosen], api_visibility="private", queue=False)
    with gr.Accordion("Settings", open=False):
        threshold = segmenter.processor.image_processor.threshold
        return [
            photo,
            words,
            gr.Radio(list(SUBTASKS), value="panoptic", label="Task"),
            gr.Slider(0, 1, threshold, step=0.05, label="Threshold", info="Least objectness of a segment"),
            gr.Slider(0, MOST_ZOOM, zoom, step=1, label="Zoom", info="How many small segments are read again, closer"),
        ]


async def _uploaded(photo: gr.Image, place: str | Path | None) -> str | None:
    """Where Gradio keeps the file. It would download an address, however much comes."""
    if is_http_url_like(str(place)):
        raise gr.Error("Photos are not fetched from addresses: upload the file.", print_exception=False)
    return await gr.Image.async_move_resource_to_block_cache(photo, place)


def _as_it_came(payload: Any) -> str | None:
    """The uploaded file, whatever it holds: [`Question`] reads it."""
    if payload is None or payload.path is None:
        return None
    # Gradio looks after files that are marked as such, and a program may leave the mark out.
    if not is_in_or_equal(payload.path, get_upload_folder()):
        raise gr.Error("This photo was not uploaded here: upload it first.", print_exception=False)
    return payload.path


def _shown() -> list[Any]:
    picture = gr.Image(
        label="Segments",
        alt_text="The photo with its segments, each coloured and named",
        interactive=False,
        format="png",
        buttons=["fullscreen"],
        elem_id="segments",
    )
    named = gr.Textbox(
        label="Segment", placeholder="Click a segment in the picture", interactive=False, elem_id="named"
    )
    table = gr.Dataframe(
        headers=["name", "score", "of the photo"], label="All segments", interactive=False, elem_id="table"
    )
    missing = gr.Textbox(label="Not found", interactive=False, visible=False, elem_id="missing")
    with gr.Row():
        files = [gr.DownloadButton(name, min_width=90, size="sm") for name in DOWNLOADS]
    return [picture, named, table, missing, *files]


def _answered(segmenter: FisaPipeline, question: Question) -> list[Any]:
    """What changes on the page: the notice, whether results are seen, what [`_shown`] shows, and the places."""
    try:
        found = answer(segmenter, question)
        with tempfile.TemporaryDirectory() as folder:
            files = write_downloads(found, Path(folder), name=question.name, photo=question.photo_file())
            kept = [save_file_to_cache(file, cache_dir=get_upload_folder()) for file in files]
    except Refused as error:
        return [gr.Textbox(str(error), visible=True), gr.Column(visible=False), *[gr.skip()] * SHOWN_PARTS, None]
    picture = found.segmentation.plot(legend=False)
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    missing = found.missing()
    return [
        gr.Textbox(visible=False),
        gr.Column(visible=True),
        picture,
        "",
        found.rows(),
        gr.Textbox(", ".join(missing), visible=bool(missing)),
        *kept,
        found.places(picture.size),
    ]


def _named(places: Places | None, event: gr.SelectData) -> str:
    if places is None:
        return "The answer is no longer here: look for segments again."
    segment = places.at(*event.index)
    if segment is None:
        return "No segment here"
    name, score, share = described(segment, places.size)
    return f"{name}: {f'score {score}, ' if score else ''}{segment.area:,} pixels, {share} of the photo"


def _as_json(segmenter: FisaPipeline, question: Question) -> dict[str, Any]:
    try:
        found = answer(segmenter, question)
    except Refused as error:  # whoever shows it shows it as HTML, and it may quote what somebody typed
        raise gr.Error(escape(str(error), quote=False), print_exception=False) from error
    words = {"not_found": list(found.segmentation.not_found), "left_out": found.left_out}
    return json.loads(json_line(question.name, found.segmentation)) | words


def _with_word(words: str, chosen: str | None) -> tuple[str, None]:
    named = [word for word in (words.strip().rstrip(","), chosen) if word]
    return ", ".join(named), None
