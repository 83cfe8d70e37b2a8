"""Shards at addresses (``s3://``, ``gs://``, ``https://``), read in parts through fsspec, with retries.

What cannot be fetched is skipped, as a file is that cannot be read; where nothing can be any more, the run ends.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, TypeVar

from headstart.errors import RunError, UserError
from headstart.images.catalog import BESIDE, Catalog, Place, Stamp, ahead, scan
from headstart.images.headers import DecodeError
from headstart.images.members import Member
from headstart.images.shards import unpacked
from headstart.images.zips import HEAD

WAITS = (0.2, 0.8, 3.0)
"""Seconds before a part is asked for again."""
LOST = 8
"""Parts in a row that could not be fetched, after which this is no matter of single images."""
ANSWER, RATE = 30.0, 2**19
"""Seconds that a request may take, and bytes that are given one more."""
PATIENCE = 100.0
"""Seconds of requests without one that was answered, after which the storage is gone."""
AT_ONCE = 2**28
"""Bytes that are asked for ahead at most: of a batch, as a rule, all."""
THREADS = 16
"""Shards that are looked at side by side."""
TABLE = 2**26
"""Bytes of a table beside a shard that are waited for: it has one of a million members."""
_SPARE = 512
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
_MARKS = ("ETag", "etag", "md5Hash", "Content-MD5", "generation", "LastModified", "Last-Modified", "mtime", "created")
"""What file systems of fsspec tell of a file that changes with it."""

T = TypeVar("T")


def check(address: str) -> None:
    """Whether addresses of this kind can be read here.

    Raises:
        UserError: A package is missing, or there is no such kind.
    """
    _filesystem(address)


def _filesystem(address: str) -> tuple[Any, str]:
    """The file system of an address, and its path there; fsspec keeps one for each process."""
    kind = address.partition("://")[0].lower()
    package = _PACKAGES.get(kind, "")
    try:
        import fsspec

        found: tuple[Any, str] = fsspec.core.url_to_fs(address)
    except ImportError as error:
        what = f"{kind}:// is read by {package or 'a package that is not installed'}" + (
            ", which is not installed" if package else f": {error}"
        )
        hint = f"pip install {package}" if package.endswith("fs") else 'pip install "headstart[remote]"'
        raise UserError(what, where="data", hint=hint) from None
    except ValueError:
        hint = "s3://, gs:// and https:// are read, and what else fsspec knows"
        raise UserError(f"{address}: addresses of the kind {kind}:// are not known", where="data", hint=hint) from None
    return found


def listed(address: str) -> list[str]:
    """The files that a glob at an address names, or that lie in a folder there (nested): addresses, sorted.

    Raises:
        UserError: There are none, or they cannot be listed.
    """
    fs, path = _filesystem(address)

    def find() -> list[str]:
        found = _call(fs, "glob" if any(sign in path for sign in "*?[") else "find", path)
        return sorted(str(fs.unstrip_protocol(one)) for one in found)

    try:
        names = _tried(find)
    except DecodeError as error:
        raise UserError(f"{address} cannot be listed: {error.reason}", where="data", hint=_hint()) from None
    if not names:
        hint = f"list it with the tool of your storage; shards are {address.rstrip('/')}/000.tar, for one"
        raise UserError(f"there are no files at {address}", where="data", hint=hint)
    return names


def _hint() -> str:
    return "look at the address, at the network, and at the credentials that the tool of your storage uses"


# ---------------------------------------------------------------------------------------------------------------------
# Parts
# ---------------------------------------------------------------------------------------------------------------------


class _Failing(threading.local):
    """What has failed since the last answer, in this thread: parts, and seconds of requests."""

    def __init__(self) -> None:
        self.answered()

    def answered(self) -> None:
        self.lost, self.seconds = 0, 0.0


_failing = _Failing()


def _call(fs: Any, name: str, *given: Any, size: int = 0, **more: Any) -> Any:
    """A method of a file system, given up where nothing comes: their own limits are minutes or none.

    Args:
        size: Bytes that are asked for.

    Raises:
        TimeoutError: That long nothing, or not all, has come.
    """
    if not getattr(fs, "async_impl", False):
        return getattr(fs, name)(*given, **more)
    from fsspec.asyn import sync
    from fsspec.exceptions import FSTimeoutError

    limit = ANSWER + size / RATE
    try:
        return sync(fs.loop, getattr(fs, f"_{name}"), *given, timeout=limit, **more)
    except FSTimeoutError:
        raise TimeoutError(f"no answer in {limit:.0f} seconds") from None


def _tried(ask: Callable[[], T]) -> T:
    """What `ask` gives, asked again where the network or the storage fails.

    Raises:
        DecodeError: It fails each time, or there is no such file.
        RunError: So did what was asked for before, or nothing is answered any more.
    """
    hint = "look at the network and at the storage"
    for wait in (*WAITS, None):
        began = time.monotonic()
        try:
            found = ask()
        except FileNotFoundError:
            _failing.answered()
            raise DecodeError("no such file") from None
        except PermissionError:
            _failing.answered()
            raise DecodeError("no permission to read it") from None
        except (DecodeError, UserError, MemoryError):
            raise
        except Exception as error:  # each file system has its own
            what = " ".join(str(error).split())[:200] or type(error).__name__
        else:
            _failing.answered()
            return found
        _failing.seconds += time.monotonic() - began + (wait or 0.0)
        if _failing.seconds >= PATIENCE:
            lasted = f"nothing was answered for {PATIENCE:.0f} seconds, last of all: {what}"
            raise RunError(lasted, where="data", hint=hint)
        if wait is not None:
            time.sleep(wait)
    _failing.lost += 1
    tried = f"cannot be fetched: {what}, {len(WAITS) + 1} times in {sum(WAITS):.0f} seconds"
    if _failing.lost >= LOST:
        raise RunError(f"{LOST} parts of shards in a row: {tried}", where="data", hint=hint)
    raise DecodeError(tried)


def part(address: str, at: int, size: int) -> bytes:
    """Bytes from a place of a shard; fewer at its end.

    Raises:
        DecodeError, RunError: They cannot be fetched.
    """
    end = min(at + size, stamp_of(address).st_size)
    if end <= at:
        return b""

    def ask() -> bytes:
        fs, path = _filesystem(address)
        return _whole(bytes(_call(fs, "cat_file", path, start=at, end=end, size=end - at)), end - at)

    return _tried(ask)


def _whole(data: bytes, size: int) -> bytes:
    if len(data) > size:
        raise DecodeError("the server sends whole files, not parts: download the shards, or use another server")
    if len(data) < size:
        raise OSError(f"{len(data)} of {size} bytes came")
    return data


# ---------------------------------------------------------------------------------------------------------------------
# Shards
# ---------------------------------------------------------------------------------------------------------------------

_stamps: dict[str, Stamp] = {}
"""Of this process: looked at once, for each look takes its time."""


def stamp_of(address: str) -> Stamp:
    """Size and a number that changes with the file, as they were when this process first looked.

    Raises:
        DecodeError, RunError: There is no such file, or it cannot be looked at.
    """
    if (known := _stamps.get(address)) is None:
        known = _stamps[address] = _looked_at(address)
    return known


def _looked_at(address: str) -> Stamp:
    def ask() -> dict[str, Any]:
        fs, path = _filesystem(address)
        return dict(_call(fs, "info", path))

    info = _tried(ask)
    size = info.get("size")
    if not isinstance(size, int):
        raise DecodeError("the server does not tell how large it is")
    marks = repr([str(info[name]) for name in _MARKS if info.get(name) is not None])
    digest = hashlib.blake2b(marks.encode(), digest_size=8).digest()
    return Stamp(size, int.from_bytes(digest, "little") >> 2)


def look_anew() -> None:
    """Look at each shard again when it is needed: a run begins."""
    _stamps.clear()


def look_at(addresses: Sequence[str]) -> None:
    """Look at shards side by side; what cannot be looked at is said where it is needed."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(watched, addresses))


def watched(address: str) -> tuple[int, int] | None:
    """Of a shard, as `stamp_of`; None where it cannot be looked at."""
    try:
        found = stamp_of(address)
    except (DecodeError, UserError):
        return None
    return found.st_mtime_ns % 10**9, found.st_size  # which counts as settled


def scanned(address: str, stamp: Stamp) -> Catalog:
    """The table of a shard: from the file beside it, else from its headers, for which much of it may have to be read.

    Raises:
        DecodeError, RunError: It cannot be read.
    """

    def beside() -> bytes:
        fs, path = _filesystem(address)
        return bytes(_call(fs, "cat_file", path + BESIDE, size=TABLE))

    try:
        found = Catalog.read(BytesIO(_tried(beside)), address, Stamp(stamp.st_size, -1), names=True)
    except DecodeError:
        found = None
    if found is not None:
        found.stamp = stamp
        return found
    return scan(address, stamp, ahead(lambda at, size: part(address, at, size)))


def member_bytes(member: Member, place: Place) -> bytes:
    """The bytes of a member, those that were fetched ahead or fetched now.

    Raises:
        DecodeError, RunError: They cannot be fetched, or are damaged.
    """
    held = _ahead.parts.pop(member, None)
    if held is None:
        return unpacked(place, lambda at, size: part(member.shard, at, size))
    start, data = held
    return unpacked(place, lambda at, size: data[at - start : at - start + size])


class _Ahead(threading.local):
    """What was fetched ahead, for this thread: where it begins in its shard, and its bytes."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.parts: dict[Member, tuple[int, bytes]] = {}


_ahead = _Ahead()


def fetch_ahead(wanted: Sequence[tuple[Member, Place]]) -> None:
    """Fetch members side by side; what does not come is asked for again, one by one, when it is read."""
    _ahead.parts.clear()
    asked: dict[Any, list[tuple[Member, str, int, int]]] = {}
    total = 0
    for member, place in wanted:
        size = place.size + (HEAD + _SPARE if place.method >= 0 else 0)
        total += size
        if total > AT_ONCE:
            break
        fs, path = _filesystem(member.shard)
        end = min(place.start + size, stamp_of(member.shard).st_size)
        asked.setdefault(fs, []).append((member, path, place.start, end))
    for fs, ranges in asked.items():
        _fetch_ranges(fs, ranges)


def _fetch_ranges(fs: Any, ranges: Sequence[tuple[Member, str, int, int]]) -> None:
    """Fetch members from one storage: each with its shard's path there, its first byte and that after its last."""
    members, paths, starts, ends = map(list, zip(*ranges, strict=True))
    began, size = time.monotonic(), sum(ends) - sum(starts)
    try:
        found = _call(fs, "cat_ranges", paths, starts, ends, on_error="return", size=size)
    except Exception:  # each file system has its own; the images are asked for one by one then
        _failing.seconds += time.monotonic() - began
        return
    for member, start, end, data in zip(members, starts, ends, found, strict=True):
        if isinstance(data, bytes) and len(data) == end - start:
            _ahead.parts[member] = (start, data)
