"""Label Studio's tasks with predictions: a brush mask for each segment, which a person then corrects."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np

from fisa.formats.places import photo_copies, replaced_folder
from fisa.formats.results import LabelledPhoto, Results
from fisa.processing.extras import library
from fisa.processing.segment import Segment
from fisa.processing.segmentation import Segmentation


LONGEST_RUN = 2**16
BITS_OF_LENGTHS = (3, 4, 8, 16)
CHANNELS = 4  # of the picture that a brush mask is: red, green, blue, opacity


def write_label_studio(results: Results, folder: Path) -> None:
    """Write `tasks.json`, the labelling interface `config.xml`, and copies of the photos in `images/`.

    Tasks name the copies as files that Label Studio serves from the folder around this one, and photos from the web by
    their own addresses.

    Args:
        results ([`Results`])
        folder (`Path`): replaced as a whole where an earlier call wrote it.

    Raises:
        ImportError: supervision is not installed.
        ValueError: the folder holds other files; or a photo cannot be read.
    """
    with replaced_folder(folder) as aside:
        (aside / "images").mkdir()
        (aside / "config.xml").write_bytes(_interface([category["name"] for category in results.categories]))
        with open(aside / "tasks.json", "w", encoding="ascii") as file:
            separator = "["
            for photo, name, content in photo_copies(results, online=False):
                address = photo.source
                if content:
                    (aside / "images" / name).write_bytes(content)
                    address = f"/data/local-files/?d={quote(f'{folder.name}/images/{name}')}"
                file.write(f"{separator}\n{json.dumps(_task(photo, address))}")
                separator = ","
            file.write("[]\n" if separator == "[" else "\n]\n")


def brush_mask(mask: np.ndarray) -> list[int]:
    """A mask as Label Studio compresses it: the bytes of a stream of bits, runs of equal values among them.

    Args:
        mask: (H, W) bool.
    """
    encode = library("supervision", extra="formats", purpose="Writing Label Studio's masks").mask_to_rle
    counts = CHANNELS * np.array(encode(mask.T), dtype=np.int64)  # its runs go down the columns, these along the rows
    pieces = -(-counts // LONGEST_RUN)
    values = np.repeat(np.arange(len(counts)) % 2 * 255, pieces)
    lengths = np.full(len(values), LONGEST_RUN)
    ends = np.cumsum(pieces)[counts > 0] - 1
    lengths[ends] = (counts[counts > 0] - 1) % LONGEST_RUN + 1
    kinds = np.searchsorted([2**bits for bits in BITS_OF_LENGTHS], lengths)
    widths = np.array(BITS_OF_LENGTHS)[kinds] + 3 + 8
    header = f"{CHANNELS * mask.size:032b}{8 - 1:05b}" + "".join(f"{bits - 1:04b}" for bits in BITS_OF_LENGTHS)
    starts = len(header) + np.cumsum(widths) - widths
    stream = np.zeros(len(header) + widths.sum(), np.uint8)
    stream[: len(header)] = np.frombuffer(header.encode(), np.uint8) - ord("0")
    for kind, bits in enumerate(BITS_OF_LENGTHS):
        chosen = kinds == kind
        # A block: that a run follows, which of the lengths' sizes it has, its length less one, its value.
        blocks = ((1 << 2 | kind) << bits | lengths[chosen] - 1) << 8 | values[chosen]
        width = bits + 3 + 8
        places = starts[chosen, None] + np.arange(width)
        stream[places] = blocks[:, None] >> np.arange(width)[::-1] & 1
    return np.packbits(stream).tolist()


def _task(photo: LabelledPhoto, address: str) -> dict[str, Any]:
    segmentation = photo.segmentation
    regions = [_region(segmentation, segment) for segment in segmentation if segment.area]
    scores = [region["score"] for region in regions if "score" in region]
    prediction = {"model_version": "fisa", "result": regions}
    if scores:
        prediction["score"] = sum(scores) / len(scores)
    return {"id": photo.id, "data": {"image": address}, "predictions": [prediction]}


def _region(segmentation: Segmentation, segment: Segment) -> dict[str, Any]:
    width, height = segmentation.size
    region = {
        "id": f"segment-{segment.id}",
        "from_name": "label",
        "to_name": "image",
        "type": "brushlabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "format": "rle",
            "rle": brush_mask(segmentation.mask(segment)),
            "brushlabels": [segment.label],
        },
    }
    return region if segment.score is None else region | {"score": segment.score}


def _interface(names: list[str]) -> bytes:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    labels = ElementTree.SubElement(view, "BrushLabels", name="label", toName="image")
    for name in names:
        ElementTree.SubElement(labels, "Label", value=name)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="utf-8") + b"\n"
