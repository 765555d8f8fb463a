"""CVAT's own format, "CVAT 1.1": a ZIP file of photos and an XML file with a mask for each segment."""

import shutil
import tempfile
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from fisa.formats.places import photo_copies
from fisa.formats.results import LabelledPhoto, Results
from fisa.processing.extras import library
from fisa.processing.files import written_whole
from fisa.processing.segment import Segment
from fisa.processing.segmentation import Segmentation


def write_cvat(results: Results, path: Path) -> None:
    """Write a ZIP file that CVAT imports as a data set into a project, and as annotations into a task of its photos.

    Scores have no place in it.

    Args:
        results ([`Results`])
        path (`Path`): of the ZIP file.

    Raises:
        ImportError: supervision is not installed.
        ValueError: a photo cannot be read.
    """
    with (
        written_whole(path) as aside,
        zipfile.ZipFile(aside, "w") as archive,
        tempfile.TemporaryFile(dir=path.parent) as annotations,
    ):
        size = 0
        for photo, name, content in photo_copies(results):
            size += 1
            # Without the time of writing: the same results make the same bytes.
            archive.writestr(zipfile.ZipInfo(f"images/{name}"), content)
            annotations.write(ElementTree.tostring(_image(photo, name), encoding="utf-8") + b"\n")
        annotations.seek(0)
        head = _head([category["name"] for category in results.categories], size=size)
        entry = zipfile.ZipInfo("annotations.xml")
        entry.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(entry, "w", force_zip64=True) as file:
            file.write(head.removesuffix(b"</annotations>"))
            shutil.copyfileobj(annotations, file)
            file.write(b"</annotations>\n")


def _head(names: list[str], *, size: int) -> bytes:
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    for name, text in {"name": "fisa", "size": str(size), "mode": "annotation"}.items():
        ElementTree.SubElement(task, name).text = text
    labels = ElementTree.SubElement(task, "labels")
    for name in names:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "attributes")
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _image(photo: LabelledPhoto, name: str) -> ElementTree.Element:
    width, height = photo.segmentation.size
    image = ElementTree.Element("image", id=str(photo.id - 1), name=name, width=str(width), height=str(height))
    for segment in photo.segmentation:
        if segment.area:
            ElementTree.SubElement(image, "mask", _mask(photo.segmentation, segment))
    return image


def _mask(segmentation: Segmentation, segment: Segment) -> dict[str, str]:
    encode = library("supervision", extra="formats", purpose="Writing CVAT's masks").mask_to_rle
    left, top, width, height = segment.box
    inside = segmentation.mask(segment)[top : top + height, left : left + width]
    counts = encode(inside.T)  # its runs go down the columns, these along the rows
    values = {"left": left, "top": top, "width": width, "height": height, "occluded": 0, "z_order": 0}
    text = {name: str(value) for name, value in values.items()}
    return {"label": segment.label, "source": "auto", "rle": ", ".join(map(str, counts))} | text
