"""Labels the photos of a folder: reading, the model and writing overlap, and a run that was stopped goes on."""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from tqdm import tqdm

from fisa.formats import require
from fisa.labelling.data_sets import DatasetPhotos
from fisa.labelling.journal import Journal
from fisa.labelling.labeller import Labeller, stacks
from fisa.labelling.overlays import OverlayFormat
from fisa.labelling.processes import Processes
from fisa.labelling.result_folder import ResultFolder, Task, Version
from fisa.processing.failures import reason_of
from fisa.processing.lettering import checked_font
from fisa.processing.photos import Photo
from fisa.processing.segmentation import Segmentation


PATIENCE = 0.5  # seconds between two looks at what other processes have done


@dataclass(frozen=True)
class Result:
    """What became of one photo: a picture and a segmentation, or the reason why there are none."""

    source: str
    picture: Path | None = None
    """The overlay picture, or the map where no such pictures are made."""
    segmentation: Segmentation | None = None
    not_found: tuple[str, ...] = ()
    """The words that were asked for and are not on it."""
    reason: str | None = None


@dataclass
class Summary:
    """What a run did.

    Args:
        photos: how many there are.
        before: how many of them were done by earlier runs.
        seconds: that this run took, without loading the model.
        skipped: the sources of photos that are not done, and why.
        classes: on how many photos each class was found.
    """

    photos: int
    before: int = 0
    seconds: float = 0.0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    classes: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """Photos whose results are there."""
        return self.photos - len(self.skipped)


def label_photos(
    labeller: Labeller,
    sources: Sequence[str] | DatasetPhotos,
    output: Path,
    *,
    overwrite: bool = False,
    formats: Sequence[str] = (),
    overlay_format: OverlayFormat | None = "jpg",
    font: str | None = None,
    report: Callable[[Result], None] = lambda result: None,
    show_progress: bool | None = None,
) -> Summary | None:
    """Segment photos and write the results to a folder, where the run before was stopped at the latest.

    For each photo there are an overlay picture `NAME_overlay.jpg` and a map `panoptic/NAME.png`; `panoptic.json`, in
    COCO's format, names those of this call, in their order. Each file is complete or absent, and `journal.jsonl` says
    what is done: a run that was killed goes on when it is called again, does nothing twice, and ends with the same
    files. Photos that changed are done again.

    Started by `accelerate launch` or `torchrun`, processes share the photos; each has a journal of its own, and the
    first puts the results together.

    Args:
        labeller ([`Labeller`])
        sources (`Sequence[str]` or [`DatasetPhotos`]): paths and addresses of photos, see [`find_photos`]; or a data
            set.
        output (`Path`): the folder, made if it is not there.
        overwrite (`bool`, defaults to `False`): whether results that are there are made anew.
        formats (`Sequence[str]`, *optional*): others than COCO's panoptic, in which the results are written at the
            end; see [`fisa.formats.write`].
        overlay_format (`"jpg"` or `"png"`, *optional*, defaults to `"jpg"`): `None`: no overlay pictures are made.
            Photos that are done but for an overlay picture of this format are done again.
        font (`str`, *optional*): a font file for the names on the pictures; see [`Segmentation.plot`].
        report (*optional*): is told of each photo that this process has done or skipped.
        show_progress (`bool`, *optional*): a bar with photos per second and the time left; on a terminal if not given.

    Returns:
        [`Summary`]; `None` in processes other than the first.

    Raises:
        ValueError: the folder holds results of other settings, or another run is writing to it; or there is no such
            format, or it cannot be written; or the font cannot be read.
        ImportError: a library that a format takes is missing.
        OSError: results cannot be written; those so far are kept.
        KeyboardInterrupt: after `panoptic.json` of what was done until then is written.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from fisa.labelling import Labeller
    >>> from fisa.labelling.folders import label_photos

    >>> summary = label_photos(Labeller("my-fisa", labels="dog, grass"), ["photo.jpg"], Path("segments"))
    >>> summary.done
    1
    ```
    """
    for format in formats:
        require(format)
    settings = labeller.settings() | ({} if font is None else {"font": checked_font(font)})
    limits = labeller.download_limits
    processes = Processes.started()
    rows = sources if isinstance(sources, DatasetPhotos) else None
    folder = ResultFolder(
        output,
        labeller.categories,
        rank=processes.rank,
        names_missing=labeller.names_missing,
        overlay_format=overlay_format,
        font=font,
    )
    with folder.locked() if processes.is_main else nullcontext():
        started = time.perf_counter()

        def plan() -> tuple[list[Task], set[Version], int]:
            of_rows = {} if rows is None else rows.settings(output)
            folder.begin(settings | of_rows, overwrite=overwrite, formats=formats)
            listed = [] if isinstance(sources, DatasetPhotos) else folder.tasks(sources)
            return listed, folder.done(), folder.next_run()

        listed, done, run = processes.from_main(plan)
        work = _Work(listed if rows is None else (Task.of_row(row, output, limits) for row in rows), done)
        photos = len(work.tasks) if rows is None else rows.total
        bar = _bar(photos, work.before, shows=show_progress, is_main=processes.is_main)
        other_processes = _OtherProcesses(output, range(1, processes.count) if processes.is_main else (), run)
        try:
            folder.journal.append({"run": run})
            done_now = 0
            with bar, closing(_labelled(labeller, folder, work.share(processes), photos=photos)) as labelled:
                for results in chain(labelled, other_processes.until_finished()):
                    for result in results:
                        report(result)
                    done_now += len(results) + other_processes.progress()
                    bar.update(work.before + done_now - bar.n)
            if not processes.is_main:
                folder.journal.append({"finished": run})
        finally:
            folder.journal.close()
            if rows is not None and not work.are_all_known:
                work.tasks += folder.not_reached(rows, work.tasks)
            classes = folder.assemble(work.tasks) if processes.is_main else None
        if classes is None:
            return None
        left_out = folder.write_formats(formats, rows=rows, limits=limits)
        for source, reason in left_out:
            report(Result(source, reason=reason))
        seconds = time.perf_counter() - started
        return Summary(len(work.tasks), work.before, seconds, folder.skipped(work.tasks) + left_out, classes)


def _bar(photos: int | None, before: int, *, shows: bool | None, is_main: bool) -> tqdm:
    """The bar of all photos, which the main process shows: on a terminal, or as it is told."""
    return tqdm(
        total=photos,
        initial=before,
        desc="segmenting",
        unit="photo",
        disable=None if shows is None else not shows or not is_main,
    )


class _Work:
    """The photos of a run, all known beforehand or coming one after the other.

    Args:
        tasks: a list of all, or what they come from.
        done: the versions of photos that earlier runs did.
    """

    def __init__(self, tasks: Iterable[Task], done: set[Version]):
        self._coming, self._done = tasks, done
        self.tasks = tasks if isinstance(tasks, list) else []
        """All that are known."""
        self.are_all_known = tasks is self.tasks
        """Whether no more will come."""
        self.before = sum(task.version in done for task in self.tasks)
        """How many of these earlier runs did."""

    def share(self, processes: Processes) -> Iterator[Task]:
        """What is left for one of several processes to do."""
        left = 0
        for task in self._coming:
            is_done = task.version in self._done
            if self._coming is not self.tasks:
                self.tasks.append(task._replace(read=None))
                self.before += is_done
            if not is_done:
                if left % processes.count == processes.rank:
                    yield task
                left += 1
        self.are_all_known = True


def _labelled(
    labeller: Labeller, folder: ResultFolder, tasks: Iterable[Task], *, photos: int | None
) -> Generator[list[Result], None, None]:
    """Results as they come, stack by stack; empty lists while none come."""
    waiting = iter(stacks(tasks, labeller.room.stack))
    count = labeller.room.calls + 1  # one more than the model takes: it reads and writes meanwhile
    with labeller.workers(count, photos=photos) as workers:

        def submitted(number: int) -> set:
            return {workers.submit(_label, labeller, folder, stack) for stack in islice(waiting, number)}

        running = submitted(1)  # which encodes the words for all that follow
        while running:
            finished, running = wait(running, timeout=PATIENCE, return_when=FIRST_COMPLETED)
            if not finished:
                yield []
            for future in finished:
                yield future.result()
            if finished:
                running |= submitted(count - len(running))


def _label(labeller: Labeller, folder: ResultFolder, tasks: Sequence[Task]) -> list[Result]:
    photos = [labeller.read(task.read or task.source) for task in tasks]
    return [_recorded(folder, *of_one) for of_one in zip(tasks, photos, labeller.segment(photos))]


def _recorded(folder: ResultFolder, task: Task, photo: Photo | Exception, result: Segmentation | Exception) -> Result:
    if isinstance(photo, Exception):
        error = photo
    elif isinstance(result, Exception):
        error = result
    else:
        try:
            missing = result.not_found if folder.names_missing else ()
            return Result(task.source, folder.add(task, photo, result), result, missing)
        except OSError:  # the disk's fault, and the next photo would fare no better
            raise
        except Exception as of_writing:
            error = of_writing
    reason = reason_of(error)
    folder.skip(task, reason)
    return Result(task.source, reason=reason)


class _OtherProcesses:
    """What other processes of a run have done, by their journals."""

    def __init__(self, output: Path, ranks: Iterable[int], run: int):
        self._run = run
        self._read = {ResultFolder(output, [], rank=rank).journal: 0 for rank in ranks}
        self._started: set[Journal] = set()

    @property
    def are_at_work(self) -> bool:
        """Whether any of them has not finished yet."""
        return bool(self._read)

    def until_finished(self) -> Iterator[list[Result]]:
        """Empty lists while they are at work."""
        while self.are_at_work:
            time.sleep(PATIENCE)
            yield []

    def progress(self) -> int:
        """How many photos they have done or skipped since the last call."""
        count = 0
        for journal, start in list(self._read.items()):
            for line in journal.lines(start):
                self._read[journal] = line.end
                if line.record.get("run") == self._run:
                    self._started.add(journal)
                is_result = "photo" in line.record and "replaced" not in line.record
                count += journal in self._started and is_result
                if line.record.get("finished") == self._run:
                    del self._read[journal]
                    break
        return count
