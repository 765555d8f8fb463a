"""Data sets of label maps, whose pixels are classes: ADE20K, Pascal Context, Pascal VOC, plain folders; and
Cityscapes, whose pixels are classes and instances."""

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from transformers.utils import logging

from fisa.data.annotation_files import inside
from fisa.data.categories import Category, categories_from_file, categories_of
from fisa.data.label_images import label_values, read_values
from fisa.data.segmentation_datasets import BrokenEntry, Entry, FileDataset, LabelProblem, SegmentationDataset
from fisa.data.splits import is_undivided
from fisa.processing.class_lists import class_list
from fisa.processing.class_names import listed
from fisa.processing.vocabulary import Class, Vocabulary


logger = logging.get_logger(__name__)

PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
LABEL_ENDINGS = (".png", ".tif", ".tiff")
VOID = 255


@dataclass(frozen=True)
class ClassMap:
    """What the pixel values of a map of classes mean.

    Args:
        category_ids: category of each pixel value; values that stand for nothing are absent.
        void: pixel values of pixels that nothing is known of.
    """

    category_ids: Mapping[int, int]
    void: frozenset[int]

    def segments(self, values: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """The map of segments, one per class, and their list.

        Args:
            values: `(H, W)` integers.

        Raises:
            LabelProblem: a value that is neither a class nor void.
        """
        present, places = np.unique(values, return_inverse=True)
        unknown = [value for value in present.tolist() if value not in self.category_ids and value not in self.void]
        if unknown:
            raise LabelProblem(
                f"holds the values {unknown[:5]}, which are not classes (known are {_span(self.category_ids)}, "
                f"ignored {sorted(self.void)}). Is this the label map of another format?"
            )
        # Segment ids count from 1 in the order of the values; 0 is void.
        is_class = np.array(
            [value in self.category_ids and value not in self.void for value in present.tolist()], bool
        )
        segment_ids = np.where(is_class, np.cumsum(is_class), 0).astype(np.int32)
        segments = [
            {"id": segment_id, "category_id": self.category_ids[value], "iscrowd": 0}
            for value, segment_id in zip(present.tolist(), segment_ids.tolist())
            if segment_id
        ]
        return segment_ids[places].reshape(values.shape), segments


@dataclass(frozen=True)
class ClassMapReader:
    """Reads a file with a map of classes as a map of segments, one per class.

    Args:
        class_map: what the values mean.
        read: reads the file's pixel values, `(H, W)` integers.
    """

    class_map: ClassMap
    read: Callable[[Path], np.ndarray]

    def __call__(self, entry: Entry) -> tuple[np.ndarray, list[dict[str, Any]]]:
        return self.class_map.segments(self.read(entry.label))


def read_mat(path: Path) -> np.ndarray:
    """The `LabelMap` of one of Pascal Context's MATLAB files."""
    try:
        return label_values(loadmat(path, variable_names=["LabelMap"])["LabelMap"])
    except (KeyError, MatReadError, NotImplementedError, TypeError, zlib.error) as error:
        raise LabelProblem(f"is not a MATLAB file (before 7.3) with a LabelMap: {error!r}.") from error


def ade20k(root: Path, *, split: str) -> SegmentationDataset:
    """ADE20K with 150 classes (ADEChallengeData2016): `images/validation/`, `annotations/validation/`.

    Pixel value 0 is ignored, 1 to 150 are the classes. Names come from `objectInfo150.txt` where it is there.
    """
    split = {"train": "training"}.get(split, split)
    vocabulary = _object_info(root / "objectInfo150.txt") or class_list("ade20k_150")
    reader = ClassMapReader(ClassMap(_numbered(150, first=1), frozenset({0})), read_values)
    categories = categories_of(vocabulary, first_id=1)
    return _paired_folders(root / "images" / split, root / "annotations" / split, categories, reader)


def ade20k_full(root: Path, *, split: str) -> SegmentationDataset:
    """ADE20K with 847 classes (ADE20K_2021_17_01), in the layout that MaskFormer's and FC-CLIP's preparation makes:
    `images_detectron2/validation/`, `annotations_detectron2/validation/`, 16-bit TIFF.

    Pixel values 0 to 846 are the classes, 65535 is ignored.
    """
    split = {"train": "training"}.get(split, split)
    reader = ClassMapReader(ClassMap(_numbered(847), frozenset({65535})), read_values)
    folders = (root / f"{kind}_detectron2" / split for kind in ("images", "annotations"))
    return _paired_folders(*folders, categories_of(class_list("ade20k_847")), reader)


def pascal_context_459(root: Path, *, split: str) -> SegmentationDataset:
    """Pascal Context with all 459 classes, as released: VOC2010's `JPEGImages/`, `trainval/*.mat` and `labels.txt`.

    The split is a list of names in `ImageSets/SegmentationContext/val.txt` or `pascalcontext_val.txt`. What is a thing
    is known of the 59 frequent classes; the release does not say it, and the others are things.
    """
    names = _numbered_names(root / "labels.txt")
    vocabulary = _with_kinds(names.values(), class_list("pascal_context_59"))
    return _pascal_context(root, split, categories_of(vocabulary, first_id=1), {value: value for value in names})


def pascal_context_59(root: Path, *, split: str) -> SegmentationDataset:
    """Pascal Context with the 59 frequent classes of `59_labels.txt`; the other 400 are ignored. As for
    [`pascal_context_459`]."""
    values = {name: value for value, name in _numbered_names(root / "labels.txt").items()}
    names = list(_numbered_names(root / "59_labels.txt").values())
    vocabulary = _with_kinds(names, class_list("pascal_context_59"))
    category_ids = {values[_spelling(name, values)]: index for index, name in enumerate(names, start=1)}
    return _pascal_context(root, split, categories_of(vocabulary, first_id=1), category_ids)


def voc_20(root: Path, *, split: str) -> SegmentationDataset:
    """Pascal VOC's 20 classes: `JPEGImages/`, `SegmentationClass/` (palette PNG), `ImageSets/Segmentation/val.txt`.

    Background (0) and the outlines (255) are ignored.
    """
    return _voc(root, split, class_list("voc_20"), first=1, void=frozenset({0, VOID}))


def voc_21(root: Path, *, split: str) -> SegmentationDataset:
    """Pascal VOC's 20 classes and the background, which is everything else. As for [`voc_20`]; the outlines
    (255) alone are ignored."""
    return _voc(root, split, class_list("voc_21"), first=0, void=frozenset({VOID}))


def cityscapes(root: Path, *, split: str) -> SegmentationDataset:
    """Cityscapes' 19 classes with instances: `leftImg8bit/val/*/`, `gtFine/val/*/*_gtFine_instanceIds.png`.

    As in cityscapesScripts' createPanopticImgs: a pixel value from 1000 on is an instance of class value // 1000, a
    smaller one of a class with instances a group of them (a crowd), and classes that are left out of the evaluation
    are void. Category ids are Cityscapes' label ids.
    """
    split = {"validation": "val"}.get(split, split)
    vocabulary = class_list("cityscapes_19")
    categories = tuple(
        Category(label_id, item.name, item.is_thing, tuple(item.synonyms))
        for label_id, item in zip(CITYSCAPES_LABEL_IDS, vocabulary)
    )
    photos = root / "leftImg8bit" / split
    entries = [
        Entry(
            image_id=path.name.removesuffix("_leftImg8bit.png"),
            image=path,
            label=root
            / "gtFine"
            / split
            / path.parent.name
            / path.name.replace("_leftImg8bit.png", "_gtFine_instanceIds.png"),
        )
        for path in sorted(photos.glob("*/*_leftImg8bit.png"))
    ]
    reader = CityscapesReader({category.id: category.isthing for category in categories})
    return FileDataset(_nonempty(entries, photos, "*/*_leftImg8bit.png"), categories, read_label=reader)


# road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, rider,
# car, truck, bus, train, motorcycle, bicycle: in the order of Cityscapes' train ids.
CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_IDS = frozenset([*range(-1, 34), 65535])  # those of void too; −1, the number plates', as 16 bits hold it


@dataclass(frozen=True)
class CityscapesReader:
    """Reads Cityscapes' instance ids.

    Args:
        has_instances: of each label id that is evaluated.
    """

    has_instances: Mapping[int, bool]

    def __call__(self, entry: Entry) -> tuple[np.ndarray, list[dict[str, Any]]]:
        values = read_values(entry.label)
        label, segments = np.zeros(values.shape, np.int32), []
        for value in np.unique(values).tolist():
            label_id = value // 1000 if value >= 1000 else value
            if label_id not in CITYSCAPES_IDS:
                raise LabelProblem(
                    f"holds the value {value}, which is of no class of Cityscapes' (label ids are 0 to 33). Is this "
                    "the label map of another format?"
                )
            if label_id not in self.has_instances:
                continue
            label[values == value] = value
            is_crowd = value < 1000 and self.has_instances[label_id]
            segments.append({"id": value, "category_id": label_id, "iscrowd": int(is_crowd)})
        return label, segments


def label_maps(root: Path, *, split: str, classes: str | None = None) -> SegmentationDataset:
    """A plain folder: `images/`, `labels/` with a PNG or TIFF of the same name for each photo, and `classes.txt` with
    one class per line; or the same in `images/train/`, `labels/train/` and so on, by split.

    Pixel value v is the v-th class of `classes.txt`, counted from 0; 255 and 65535 are ignored unless there are
    enough classes to reach them. Classes named `_`, any number of them, are ignored as well: put one first where 0
    means "no label".
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder. Name the one that holds images/, labels/ and classes.txt.")
    path = Path(classes) if classes else root / "classes.txt"
    if not path.exists():
        raise ValueError(f"{path}: no such file. Write the classes there, one per line, in the order of their values.")
    categories = categories_from_file(path)
    ignored = frozenset(category.id for category in categories if category.name == "_")
    numbered = _numbered(len(categories))
    reader = ClassMapReader(ClassMap(numbered, ignored | ({VOID, 65535} - numbered.keys())), read_values)
    kept = tuple(category for category in categories if category.id not in ignored)
    part = "" if is_undivided("label_maps", root, split=split) else split
    return _paired_folders(root / "images" / part, root / "labels" / part, kept, reader)


def _paired_folders(
    photos: Path, labels: Path, categories: tuple[Category, ...], reader: ClassMapReader
) -> SegmentationDataset:
    """Photos and label maps of the same names in two folders."""
    for folder in (photos, labels):
        if not folder.is_dir():
            raise ValueError(
                f"{folder}: no such folder. Name the folder above it, and the split with --train_split or "
                "--eval_split."
            )
    label_paths: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(labels.iterdir()):
        if path.suffix.lower() in LABEL_ENDINGS:
            label_paths[path.stem].append(path)
    photo_paths = [path for path in sorted(photos.iterdir()) if path.suffix.lower() in PHOTO_ENDINGS]
    entries = [_paired(path, label_paths.get(path.stem, [labels / f"{path.stem}.png"])) for path in photo_paths]
    stems = {path.stem for path in photo_paths}
    if alone := [path.name for stem, paths in label_paths.items() if stem not in stems for path in paths]:
        logger.warning(
            f"{len(alone)} labels in {labels} have no photo in {photos} and are left out: {listed(alone)}. Photos end "
            f"in {', '.join(PHOTO_ENDINGS)}."
        )
    return FileDataset(_nonempty(entries, photos, "photos"), categories, read_label=reader)


def _paired(photo: Path, labels: list[Path]) -> Entry | BrokenEntry:
    if len(labels) > 1:
        names = " and ".join(label.name for label in labels)
        return BrokenEntry(photo.stem, f"{photo}: has several labels in {labels[0].parent}, {names}; keep one.")
    return Entry(image_id=photo.stem, image=photo, label=labels[0])


def _voc(root: Path, split: str, vocabulary: Vocabulary, *, first: int, void: frozenset[int]) -> SegmentationDataset:
    root = root / "VOC2012" if (root / "VOC2012").is_dir() else root
    reader = ClassMapReader(ClassMap(_numbered(len(vocabulary), first=first), void), read_values)
    entries = [
        Entry(
            image_id=name, image=root / "JPEGImages" / f"{name}.jpg", label=root / "SegmentationClass" / f"{name}.png"
        )
        for name in _listed(split, root / "ImageSets" / "Segmentation")
    ]
    return FileDataset(entries, categories_of(vocabulary, first_id=first), read_label=reader)


def _pascal_context(
    root: Path, split: str, categories: tuple[Category, ...], category_ids: Mapping[int, int]
) -> SegmentationDataset:
    entries = [
        Entry(image_id=name, image=root / "JPEGImages" / f"{name}.jpg", label=root / "trainval" / f"{name}.mat")
        for name in _listed(split, root / "ImageSets" / "SegmentationContext", root)
    ]
    void = frozenset(range(0, 460)) - frozenset(category_ids)
    return FileDataset(entries, categories, read_label=ClassMapReader(ClassMap(category_ids, void), read_mat))


def _listed(split: str, *folders: Path) -> list[str]:
    """The names in a split's list."""
    name = {"validation": "val"}.get(split, split)
    paths = [folder / file for folder in folders for file in (f"{name}.txt", f"pascalcontext_{name}.txt")]
    for path in paths:
        if path.exists():
            names = path.read_text(encoding="utf-8").split()
            for name in names:
                inside(path.parent, name, where=f"{path}: each line")
            return names
    raise ValueError(f"No list of the photos of split {split!r}: looked for {', '.join(map(str, paths))}.")


def _numbered(count: int, *, first: int = 0) -> dict[int, int]:
    return {value: value for value in range(first, first + count)}


def _numbered_names(path: Path) -> dict[int, str]:
    """Lines such as `12: bag`, in Pascal Context's lists."""
    if not path.exists():
        raise ValueError(f"{path}: no such file; it comes with Pascal Context's annotations.")
    numbered = (line.partition(":") for line in path.read_text().splitlines() if line.strip())
    return {int(number): name.strip() for number, _, name in numbered}


# What 59_labels.txt calls differently than labels.txt.
_SPELLINGS = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}


def _spelling(name: str, known: Mapping[str, int]) -> str:
    for spelling in (name, _SPELLINGS.get(name, name), name.replace(" ", "")):
        if spelling in known:
            return spelling
    raise ValueError(f"labels.txt has no class {name!r}, which 59_labels.txt names.")


def _with_kinds(names: Iterable[str], shipped: Vocabulary) -> Vocabulary:
    """A data set's own names, with synonyms and kinds from the shipped list where it has the same name."""
    known = {item.name.casefold(): item for item in shipped}
    return Vocabulary(
        replace(known[name.casefold()], name=name) if name.casefold() in known else Class(name) for name in names
    )


def _object_info(path: Path) -> Vocabulary | None:
    """ADE20K's own list: a table with a column `Name`, of synonyms, and perhaps one `Stuff`."""
    if not path.exists():
        return None
    shipped = class_list("ade20k_150")
    header, *rows = [line.split("\t") for line in path.read_text().splitlines() if line.strip()]
    column = [title.strip().casefold() for title in header].index("name")
    names = [[name.strip() for name in row[column].replace(";", ",").split(",")] for row in rows]
    return Vocabulary(_deduplicated(names, [item.is_thing for item in shipped]))


def _deduplicated(names: list[list[str]], is_thing: list[bool]) -> Iterator[Class]:
    taken = {name.casefold() for name, *_ in names}
    for (name, *synonyms), thing in zip(names, is_thing):
        free = [synonym for synonym in dict.fromkeys(synonyms) if synonym.casefold() not in taken]
        taken.update(synonym.casefold() for synonym in free)
        yield Class(name, free, thing)


def _nonempty(entries: Sequence[Entry | BrokenEntry], folder: Path, what: str) -> Sequence[Entry | BrokenEntry]:
    if not entries:
        raise ValueError(
            f"{folder}: no {what} found there. Name the folder above it, and the split with --train_split or "
            "--eval_split."
        )
    return entries


def _span(values: Mapping[int, int]) -> str:
    return f"{min(values)} to {max(values)}"
