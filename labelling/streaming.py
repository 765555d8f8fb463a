"""Photos in, segmentations out, in their order and without files: for programs that read them from a pipe."""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from itertools import islice

from fisa.labelling.folders import Result
from fisa.labelling.labeller import Labeller, reason_of, stacks


def stream_photos(labeller: Labeller, sources: Sequence[str]) -> Generator[Result, None, None]:
    """Segment photos one after the other; some are read and in the model ahead of the one that is returned.

    Args:
        labeller ([`Labeller`])
        sources (`Sequence[str]`): paths and addresses of photos; see [`find_photos`].

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
    waiting = stacks(sources, labeller.room.stack)
    ahead = labeller.room.calls + 1  # one more than the model takes: it reads meanwhile
    running: deque[Future[list[Result]]] = deque()
    with labeller.workers(ahead, photos=len(sources)) as workers:
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


def _segmented(labeller: Labeller, sources: Sequence[str]) -> list[Result]:
    return [
        Result(source, reason=reason_of(result))
        if isinstance(result, Exception)
        else Result(source, segmentation=result[1])
        for source, result in zip(sources, labeller.label(sources))
    ]
