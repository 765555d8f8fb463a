"""Photos in, segmentations out, in their order and without files: for programs that read them from a pipe."""

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Any

from fisa.labelling.data_sets import DatasetPhotos
from fisa.labelling.folders import Result
from fisa.labelling.labeller import Labeller, stacks
from fisa.processing.failures import reason_of


def stream_photos(labeller: Labeller, sources: Sequence[str] | DatasetPhotos) -> Generator[Result, None, None]:
    """Segment photos one after the other; some are read and in the model ahead of the one that is returned.

    Args:
        labeller ([`Labeller`])
        sources (`Sequence[str]` or [`DatasetPhotos`]): paths and addresses of photos, see [`find_photos`]; or a data
            set.

    Returns:
        What became of each photo, in the order of `sources`; nothing is written.

    Example:

    ```python
    >>> from fisa.labelling import Labeller
    >>> from fisa.labelling.streaming import stream_photos

    >>> for result in stream_photos(Labeller("my-fisa", labels="dog, grass"), ["photo.jpg"]):
    ...     print(result.source, result.segmentation.size)
    photo.jpg (640, 480)
    ```
    """
    photos: Iterable[tuple[str, Any]]
    if isinstance(sources, DatasetPhotos):
        total = sources.total
        photos = ((row.source, partial(row.read, **labeller.download_limits)) for row in sources)
    else:
        total, photos = len(sources), zip(sources, sources)
    waiting = stacks(photos, labeller.room.stack)
    ahead = labeller.room.calls + 1  # one more than the model takes: it reads meanwhile
    running: deque[Future[list[Result]]] = deque()
    with labeller.workers(ahead, photos=total) as workers:
        try:
            running.extend(workers.submit(_segmented, labeller, stack) for stack in islice(waiting, 1))
            while running:  # the first encodes the words for all that follow
                yield from running.popleft().result()
                running.extend(
                    workers.submit(_segmented, labeller, stack) for stack in islice(waiting, ahead - len(running))
                )
        finally:
            for future in running:
                future.cancel()


def _segmented(labeller: Labeller, photos: Sequence[tuple[str, Any]]) -> list[Result]:
    sources, images = zip(*photos)
    return [
        Result(source, reason=reason_of(result))
        if isinstance(result, Exception)
        else Result(source, segmentation=result[1])
        for source, result in zip(sources, labeller.label(images))
    ]
