"""Downloads that come to an end: a limit for the whole transfer in seconds and one in bytes."""

import asyncio
import time
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from numbers import Real
from tarfile import TarError
from threading import Thread
from typing import Any
from zipfile import BadZipFile

from huggingface_hub.utils import httpx

from fisa.processing.extras import library


DOWNLOAD_SECONDS = 60.0
DOWNLOAD_BYTES = 100_000_000
CHUNK = 2**20  # bytes


def is_online(address: str) -> bool:
    """Whether this is the address of something that [`download`] fetches."""
    return address.lower().startswith(("http://", "https://"))


def limit(name: str, value: Any) -> Any:
    """A limit of downloads.

    Raises:
        ValueError: it is not a number greater than 0.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not float(value) > 0:
        raise ValueError(f"`{name}` is {value!r}; a limit must be a number greater than 0.")
    return value


def download(url: str, *, timeout: float | None = None, max_bytes: int | None = None) -> bytes:
    """What an http:// or https:// address holds.

    Args:
        url: redirects are followed, to http:// and https:// alone.
        timeout: seconds for the whole transfer, from the look-up of the name to the last byte; 60 if not given.
        max_bytes: how much may come, after decompression; 100 million if not given.

    Raises:
        OSError: the address cannot be reached, answers with anything but the whole file, or exceeds a limit; the
            message says which.
        ValueError: a limit is not a number greater than 0.
    """
    timeout, max_bytes = _limits(timeout, max_bytes)
    transfer = _transfer(url, max_bytes=max_bytes)
    try:
        # In a thread of its own, because a notebook's thread already runs an event loop.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, asyncio.wait_for(transfer, timeout)).result()
    except TimeoutError as error:
        raise _too_slow(timeout) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(f"the download failed: {error or type(error).__name__}") from error


def download_by_fsspec(address: str, *, timeout: float | None = None, max_bytes: int | None = None) -> bytes:
    """What an address of any file system that `fsspec` knows holds, such as `hf://…` or `zip://…::https://…`.

    Args:
        timeout, max_bytes: as in [`download`].

    Raises:
        OSError: it cannot be read, or exceeds a limit. ImportError: fsspec is not installed.
        ValueError: a limit is not a number greater than 0, or there is no such file system.
    """
    timeout, max_bytes = _limits(timeout, max_bytes)
    fsspec = library("fsspec", extra="formats", purpose="Reading files of data sets")
    end, answer = time.monotonic() + timeout, Future[bytes]()

    def read() -> bytes:
        content = bytearray()
        try:
            with fsspec.open(address, "rb") as file:
                while chunk := file.read(CHUNK):
                    content += chunk
                    if len(content) > max_bytes:
                        raise _too_large(max_bytes)
                    if time.monotonic() > end:
                        raise _too_slow(timeout)
        except (BadZipFile, TarError, zlib.error, EOFError) as error:
            raise OSError(f"the archive cannot be read: {error}") from error
        return bytes(content)

    def run() -> None:
        try:
            answer.set_result(read())
        except BaseException as error:
            answer.set_exception(error)

    # Nothing stops a thread that a file system keeps waiting; as a daemon it does not keep the process.
    Thread(target=run, daemon=True).start()
    try:
        return answer.result(timeout)
    except TimeoutError as error:
        if answer.done():  # the file system's own
            raise
        raise _too_slow(timeout) from error


def _limits(timeout: float | None, max_bytes: int | None) -> tuple[float, int]:
    return (
        DOWNLOAD_SECONDS if timeout is None else limit("timeout", timeout),
        DOWNLOAD_BYTES if max_bytes is None else limit("max_download_bytes", max_bytes),
    )


def _too_slow(timeout: float) -> OSError:
    return OSError(f"the download did not end within {timeout:g} seconds; `timeout` allows more.")


def _too_large(max_bytes: int) -> OSError:
    return OSError(f"the download exceeds {max_bytes} bytes; `max_download_bytes` allows more.")


async def _transfer(url: str, *, max_bytes: int) -> bytes:
    content = bytearray()
    client = httpx.AsyncClient(follow_redirects=True, timeout=None, headers={"Accept-Encoding": "gzip"})
    async with client, client.stream("GET", url) as response:
        if response.status_code != httpx.codes.OK:
            raise OSError(f"the server answered {response.status_code} {response.reason_phrase}")
        # Of other encodings, a few bytes on the wire can unpack to gigabytes at once, before anything is counted.
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip"):
            raise OSError(f"the server sent the encoding {encoding!r}, which was not asked for.")
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > max_bytes:
                raise _too_large(max_bytes)
    return bytes(content)
