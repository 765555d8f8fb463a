"""An answer as files that people take with them."""

import shutil
from pathlib import Path

from fisa.data.categories import categories_of
from fisa.formats import Results, write
from fisa.page.answers import Answer
from fisa.processing.coco_panoptic import CocoPanopticWriter


def write_downloads(answer: Answer, folder: Path, *, name: str, photo: bytes) -> list[Path]:
    """Write the picture with its legend, COCO's annotations, and a data set in YOLO's format as an archive.

    Args:
        answer ([`Answer`])
        folder (`Path`): an empty one.
        name (`str`): the photo's file name.
        photo (`bytes`): what its file holds.

    Returns:
        The three files' paths, in this order.
    """
    stem = Path(name).stem
    categories = [category.to_dict() for category in categories_of(answer.vocabulary, first_id=1)]
    writer = CocoPanopticWriter(folder / "panoptic.json", categories)
    ids = [category["id"] for category in categories]
    writer.add(1, file_name=name, stem=stem, **answer.segmentation.to_panoptic(ids))
    writer.close()
    results = Results(folder / "panoptic.json", files=[(name, lambda: photo)])
    drawn, coco = folder / f"{stem}_segments.png", folder / f"{stem}_coco.json"
    answer.segmentation.save(drawn)
    write(results, "coco", folder).rename(coco)
    archive = shutil.make_archive(str(folder / f"{stem}_yolo"), "zip", write(results, "yolo", folder))
    return [drawn, coco, Path(archive)]
