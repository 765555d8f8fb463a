"""A folder of results: an overlay picture and a map for each photo, a journal that says what is done, and COCO's
`panoptic.json` made from it."""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from fisa.formats import FORMATS, Results, write
from fisa.formats.places import refuse_other_files
from fisa.labelling.data_sets import DatasetPhotos, Row
from fisa.labelling.journal import Journal, Line
from fisa.labelling.overlays import OVERLAY_FORMATS, OverlayFormat, is_overlay, overlay_path, write_overlay
from fisa.labelling.photo_search import ANNOTATIONS, JOURNAL, PhotoKey, photo_keys, result_names
from fisa.labelling.stamps import Stamp, row_stamp, source_stamp
from fisa.processing.coco_panoptic import numbered, write_annotations, write_map
from fisa.processing.files import name_fields, remove_leftovers, remove_whole
from fisa.processing.photos import Photo
from fisa.processing.segmentation import Segmentation


Version = tuple[PhotoKey, Stamp]

FORMAT = 1  # of the journal: one that this version would misread has a higher number
LOCK = "journal.lock"
LONGEST_SHOWN, AROUND = 60, 20  # characters of a setting in a message, and before the first that differs


class Task(NamedTuple):
    """One photo of a call."""

    source: str
    """As the call names it."""
    key: PhotoKey
    stamp: Stamp
    """What changes with the file's content; addresses on the web have none."""
    name: str
    """Of its results, without an ending."""
    read: Callable[[], Any] | None = None
    """Gives the photo as [`load_photo`] takes it, where the source alone does not."""

    @classmethod
    def of_row(cls, row: Row, folder: Path, limits: Mapping[str, Any]) -> "Task":
        """The task that a photo of a data set is, with its results in a folder and limits for downloads."""
        read = partial(row.read, **limits)
        return cls(row.source, PhotoKey(row.place), row_stamp(row, folder), row.name, read)

    @property
    def version(self) -> Version:
        """What the results are of."""
        return self.key, self.stamp


class _Place(NamedTuple):
    """Where the journals have a photo's newest record."""

    journal: Journal
    start: int
    run: int
    name: str
    version: Version | None
    """What its files are of; `None` if they were being replaced when the process was killed."""


class ResultFolder:
    """Results of one model with one vocabulary and setting, made by one call or by several that go on.

    Args:
        path (`Path`): of the folder; made if it is not there.
        categories (`Sequence[Mapping[str, Any]]`): as COCO has them.
        rank (`int`, defaults to 0): which of several processes writes here; each has a journal of its own.
        names_missing (`bool`, defaults to `False`): whether annotations say which classes were `not_found`.
        overlay_format (`"jpg"` or `"png"`, *optional*, defaults to `"jpg"`): `None`: no overlay pictures are made.
        font (`str`, *optional*): a font file for the names on the pictures.
    """

    def __init__(
        self,
        path: Path,
        categories: Sequence[Mapping[str, Any]],
        *,
        rank: int = 0,
        names_missing: bool = False,
        overlay_format: OverlayFormat | None = "jpg",
        font: str | None = None,
    ):
        self.path, self.names_missing, self.overlay_format, self.font = path, names_missing, overlay_format, font
        self.categories = categories
        self._category_ids = [category["id"] for category in categories]
        self.journal = Journal(path / (JOURNAL if rank == 0 else f"{Path(JOURNAL).stem}-{rank}.jsonl"))

    @property
    def annotations(self) -> Path:
        """The path of `panoptic.json`."""
        return self.path / ANNOTATIONS

    @property
    def maps(self) -> Path:
        """The folder of the maps."""
        return self.annotations.with_suffix("")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out; a killed process lets them in again.

        Raises:
            ValueError: another run is writing here.
        """
        self.maps.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path / LOCK, timeout=0):
                yield
        except Timeout as error:
            raise ValueError(
                f"{self.path} is being written to by another run; wait for its end or name another --output."
            ) from error

    def begin(self, settings: Mapping[str, Any], *, overwrite: bool, formats: Sequence[str] = ()) -> None:
        """Make the folder ready for results.

        Args:
            settings: what maps and annotations depend on. The format of overlay pictures is none of them: where one
                of that format is not there, the photo is done again.
            overwrite: whether results of other settings go.
            formats: names of [`FORMATS`] that will be written at the end.

        Raises:
            ValueError: there are results of other settings, or that no run wrote, and `overwrite` is not set; or what
                no run wrote is where a format's file or folder is or will be; or a later version made the folder.
        """
        if (format_found := self._first("format") or FORMAT) > FORMAT:
            raise ValueError(
                f"{self.path} was written by a later version of FISA (its journal has the format {format_found}, this "
                f"version knows {FORMAT}); update FISA, or name another --output."
            )
        for format in {*formats, *self._formats()}:
            self._refuse_foreign(format)
        earlier = self._first("settings")
        if overwrite and earlier is not None:
            self._remove_all()
            earlier = None
        if earlier is not None and earlier != settings:
            raise ValueError(
                f"{self.path} holds results of other settings ({_differences(earlier, settings)}); name another "
                "--output, or replace them with --overwrite."
            )
        if earlier is None and not overwrite and (self.annotations.exists() or any(self.maps.iterdir())):
            raise ValueError(
                f"{self.path} holds a {ANNOTATIONS} or maps, and no journal that says how they were made; name "
                "another --output, or replace them with --overwrite."
            )
        for folder in (self.path, self.maps):
            remove_leftovers(folder, older_than=0)
        if earlier is None:
            self.journal.append({"format": FORMAT, "settings": dict(settings)})

    def next_run(self) -> int:
        """A number for the run that begins: higher than those of all runs before, whatever processes they had."""
        return 1 + max((run for _, run, _ in self._lines()), default=0)

    def tasks(self, sources: Sequence[str]) -> list[Task]:
        """A task for each photo.

        Args:
            sources: their paths and addresses.
        """
        keys = photo_keys(sources, self.path)
        names = result_names(keys, {key: place.name for key, place in self._places().items()})
        return [Task(*columns) for columns in zip(sources, keys, map(source_stamp, sources), names)]

    def not_reached(self, rows: DatasetPhotos, tasks: Sequence[Task]) -> list[Task]:
        """What earlier runs did of a data set behind the rows that this one came to, in their order.

        Args:
            rows: the data set.
            tasks: those that the run came to.
        """
        reached = {task.key for task in tasks}
        left = [
            Task(rows.source(key.place), key, stamp, place.name)
            for (key, stamp), place in self._versions().items()
            if key not in reached
        ]
        return sorted(left, key=lambda task: (len(task.name), task.name))  # by their numbers

    def done(self) -> set[Version]:
        """The versions of photos whose results are all there."""
        there = {Path(file.path) for folder in (self.path, self.maps) for file in os.scandir(folder)}
        return {version for version, place in self._versions().items() if there.issuperset(self._files(place.name))}

    def _mapped(self) -> dict[Version, _Place]:
        """By version of a photo whose map is there."""
        there = {file.name for file in os.scandir(self.maps)}
        return {version: place for version, place in self._versions().items() if f"{place.name}.png" in there}

    def add(self, task: Task, photo: Photo, segmentation: Segmentation) -> Path:
        """Write a photo's results, then the journal's line.

        Returns:
            The path of the overlay picture, or of the map where there is none.

        Raises:
            ValueError: a file that no run wrote is where the overlay picture should be.
            OSError: the results cannot be written.
        """
        ids, infos = numbered(**segmentation.to_panoptic(self._category_ids))
        map_path, *overlay = self._files(task.name)
        for path in overlay:
            if path.exists() and not is_overlay(path):
                raise _foreign(path)
        if map_path.exists():  # killed from here on, it is neither the older version nor this one
            self.journal.append(self._head(task) | {"name": task.name, "replaced": True})
        write_map(map_path, ids)
        self._remove_overlays(task.name, kept=overlay)
        for path in overlay:
            write_overlay(path, photo.image, segmentation, font=self.font)
        width, height = segmentation.size
        self.journal.append(
            self._head(task)
            | {"name": task.name, "stamp": task.stamp, "height": height, "width": width, "segments_info": infos}
            | ({} if photo.digest is None else {"sha256": photo.digest})
            | ({"not_found": list(segmentation.not_found)} if self.names_missing else {})
        )
        return overlay[0] if overlay else map_path

    def skip(self, task: Task, reason: str) -> None:
        """Note a photo that could not be segmented. The next run tries again."""
        self.journal.append(self._head(task) | {"skipped": reason})

    def assemble(self, tasks: Sequence[Task]) -> Counter[str]:
        """Write `panoptic.json` of those photos that have a map, in their order.

        Returns:
            On how many photos each class was found.
        """
        places = self._mapped()
        done = [(task, places[task.version]) for task in tasks if task.version in places]
        classes: Counter[str] = Counter()
        names = {category["id"]: category["name"] for category in self.categories}

        def images() -> Iterator[dict[str, Any]]:
            for number, (task, place) in enumerate(done, start=1):
                record = place.journal.at(place.start)
                of_file = {name: record[name] for name in ("height", "width", "sha256") if name in record}
                yield {"id": number} | name_fields("file_name", task.source) | of_file

        def annotations() -> Iterator[dict[str, Any]]:
            for number, (task, place) in enumerate(done, start=1):
                record = place.journal.at(place.start)
                answer = {name: record[name] for name in ("segments_info", "not_found") if name in record}
                classes.update({names[segment["category_id"]] for segment in record["segments_info"]})
                yield {"image_id": number, "file_name": f"{task.name}.png"} | answer

        write_annotations(self.annotations, images=images(), annotations=annotations(), categories=self.categories)
        return classes

    def write_formats(
        self, formats: Sequence[str], *, rows: Iterable[Row] | None = None, limits: Mapping[str, Any]
    ) -> list[tuple[str, str]]:
        """Write what `panoptic.json` says in other formats, each complete or absent.

        Args:
            formats: names of [`FORMATS`].
            rows: the data set whose photos they are, if they are of one.
            limits: `timeout` and `max_download_bytes`, as [`load_photo`] takes them.

        Returns:
            The sources of photos that cannot be read any more or have changed, and are missing there, and why.

        Raises:
            ValueError: a file or folder that no run wrote is in the way.
        """
        left_out: dict[str, tuple[str, str]] = {}
        for format in formats:
            self._refuse_foreign(format)
            if format not in self._formats():
                self.journal.append({"written as": format})
            files = None if rows is None else ((row.source, partial(row.read, **limits)) for row in rows)
            write(Results(self.annotations, files=files, left_out=left_out, **limits), format, self.path)
        self.journal.close()
        return list(left_out.values())

    def skipped(self, tasks: Sequence[Task]) -> list[tuple[str, str]]:
        """The sources of the photos that are not done, and why."""
        reasons: dict[PhotoKey, tuple[int, str]] = {}
        for _, run, line in self._lines():
            if "skipped" in line.record:
                key = _key(line.record)
                reasons[key] = max(reasons.get(key, (0, "")), (run, line.record["skipped"]))
        done = self.done()
        return [
            (task.source, reasons[task.key][1] if task.key in reasons else "its map or picture is gone")
            for task in tasks
            if task.version not in done
        ]

    def _files(self, name: str) -> list[Path]:
        """What there is for a photo that is done: the map and, if any is made, the overlay picture."""
        overlay = [] if self.overlay_format is None else [overlay_path(self.path, name, self.overlay_format)]
        return [self.maps / f"{name}.png", *overlay]

    def _remove_overlays(self, name: str, *, kept: Sequence[Path] = ()) -> None:
        """Remove what earlier calls drew of a photo, in any format."""
        for format in OVERLAY_FORMATS:
            path = overlay_path(self.path, name, format)
            if path not in kept and is_overlay(path):
                path.unlink()

    def _head(self, task: Task) -> dict[str, Any]:
        return {"photo": task.key.place} | ({"repetition": task.key.repetition} if task.key.repetition > 1 else {})

    def _journals(self) -> list[Journal]:
        pattern = re.compile(rf"{Path(JOURNAL).stem}(-\d+)?\.jsonl")
        paths = [path for path in self.path.iterdir() if pattern.fullmatch(path.name)]
        # First the one that says whose results these are.
        return [Journal(path) for path in sorted(paths, key=lambda path: (path.name != JOURNAL, path.name))]

    def _lines(self) -> Iterator[tuple[Journal, int, Line]]:
        """Each line of the journals, with the number of its run."""
        for journal in self._journals():
            run = 0
            for line in journal.lines():
                run = line.record.get("run", run)
                yield journal, run, line

    def _first(self, name: str) -> Any:
        """What the journals say first under this name; `None` if nothing."""
        return next((line.record[name] for _, _, line in self._lines() if name in line.record), None)

    def _places(self) -> dict[PhotoKey, _Place]:
        """By photo, whose newest record is that of the latest run and, in this, the last."""
        places: dict[PhotoKey, _Place] = {}
        for journal, run, line in self._lines():
            if "name" in line.record:
                key = _key(line.record)
                if key not in places or places[key].run <= run:
                    places[key] = _Place(journal, line.start, run, line.record["name"], _version(line.record))
        return places

    def _versions(self) -> dict[Version, _Place]:
        """By photo and version of its file, of which the results are."""
        return {place.version: place for place in self._places().values() if place.version is not None}

    def _formats(self) -> set[str]:
        return {line.record["written as"] for _, _, line in self._lines() if "written as" in line.record}

    def _refuse_foreign(self, format: str) -> None:
        place = self.path / FORMATS[format].place
        if place.is_dir():
            refuse_other_files(place)
        elif place.exists() and format not in self._formats():
            raise _foreign(place)

    def _remove_all(self) -> None:
        for place in self._places().values():
            (self.maps / f"{place.name}.png").unlink(missing_ok=True)
            self._remove_overlays(place.name)
        self.annotations.unlink(missing_ok=True)
        for format in self._formats():
            remove_whole(self.path / FORMATS[format].place)
        self.journal.close()
        for journal in reversed(self._journals()):  # last the one that says whose results these were
            journal.path.unlink()


def _key(record: Mapping[str, Any]) -> PhotoKey:
    return PhotoKey(record["photo"], record.get("repetition", 1))


def _version(record: Mapping[str, Any]) -> Version | None:
    if "replaced" in record:
        return None
    stamp = record["stamp"]
    return _key(record), stamp and tuple(stamp)


def _foreign(path: Path) -> ValueError:
    return ValueError(f"{path} was not made by fisa-segment; move it, or name another --output.")


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    absent = object()  # a setting may be `None`
    pairs = {name: (earlier.get(name, absent), now.get(name, absent)) for name in {**earlier, **now}}
    return "; ".join(
        f"{name}: {_difference(one, other, absent=absent)}" for name, (one, other) in pairs.items() if one != other
    )


def _difference(one: Any, other: Any, *, absent: object) -> str:
    """Two values of a setting; of long ones, what stands where they begin to differ."""
    texts = ["not set" if value is absent else _shown(value) for value in (one, other)]
    if texts[0] == texts[1]:  # classes of the same names
        texts = [str(one), str(other)]
    start = len(os.path.commonprefix(texts)) - AROUND if max(map(len, texts)) > LONGEST_SHOWN else 0
    return ", now ".join(_cut(text, max(0, start)) for text in texts)


def _cut(text: str, start: int) -> str:
    rest = f"...{text[start:]}" if start else text
    return rest if len(rest) <= LONGEST_SHOWN else f"{rest[: LONGEST_SHOWN - 3]}..."


def _shown(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value):
        value = ", ".join(item["name"] for item in value)
    return "none" if value is None or value == "" else str(value)
