"""Shards, and the tables that lie beside them, of any bytes: members come whole, or a line says why they do not.

As `test_fuzz`, which has the time of each: ``pytest -m slow tests/security``.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path

import pytest
from test_fuzz import damaged, exchanged, fuzzed

import packs
from headstart.images.catalog import Catalog, Stamp
from headstart.images.decode import DecodeError
from headstart.images.members import Member, clean
from headstart.images.shards import bytes_of, table_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
MOST = 2**24
"""Bytes of a member that are asked for at most."""
MEMBERS = {"a/1.jpg": packs.picture(1)[:300], "a/1.txt": b"0 0.5 0.5 0.2 0.2\n", "\u00fc" * 60 + ".png": b"x" * 700}
NUMBERS = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff\xff\xff\xff\xff", b"\0" * 8, b"77777777777", b"-1", b"\x80"]


def every_member(shard: Path) -> None:
    """Read a shard as a run does: its table, and then each member, or the reason."""
    for name in list(table_of(str(shard), names=True).names()):
        assert name == clean(name)
        try:
            assert len(bytes_of(Member(str(shard), name), MOST)) <= MOST
        except DecodeError:
            continue


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_shards(suffix: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if suffix == ".tar":
            kinds = (packs.tarfile.PAX_FORMAT, packs.tarfile.GNU_FORMAT, packs.tarfile.USTAR_FORMAT)
            short = {key[-90:]: data for key, data in MEMBERS.items() if key.isascii()}
            files = [packs.tar(folder / f"{one}.tar", MEMBERS if one else short, one) for one in kinds]
        else:
            methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            files = [packs.zipped(folder / f"{one}.zip", MEMBERS, one) for one in methods]
        good = [path.read_bytes() for path in files]
        count = 0

        def read(data: bytes) -> None:
            nonlocal count
            count += 1  # a shard that changes while it is read is another matter
            path = folder / f"shard-{count}{suffix}"
            path.write_bytes(data)
            try:
                every_member(path)
            finally:
                path.unlink()

        fuzzed(
            damaged(good, words=[*NUMBERS, b"PK\x05\x06", b"PK\x01\x02", b"ustar\x0000", b"GNU.sparse.major=1\n"]), read
        )


def test_tables() -> None:
    """A table beside a shard is one for it, or none."""
    with tempfile.TemporaryDirectory() as name:
        shard = packs.tar(Path(name) / "a.tar", MEMBERS)
        found = table_of(str(shard), names=True)
        stamp = Stamp(shard.stat().st_size, shard.stat().st_mtime_ns)
        table = Path(name) / "table"
        found.write(table)

        def read(data: bytes) -> None:
            table.write_bytes(data)
            for names in (True, False):
                with table.open("rb") as file:
                    kept = Catalog.read(file, str(shard), stamp, names=names)
                if kept is None:
                    continue
                for member in MEMBERS:
                    place = kept.find(member)
                    assert place is None or 0 <= place.start <= place.start + place.size <= stamp.st_size
                assert kept.problem("none") is None or kept.problems

        words = [*NUMBERS, b"1e999", b"Infinity", b"NaN", b"9" * 30, b"[", b"null", b"\n"]
        head, _, rest = table.read_bytes().partition(b"\n")
        others = exchanged(json.loads(head)).map(lambda one: json.dumps(one).encode() + b"\n" + rest)
        fuzzed(damaged([table.read_bytes()], words=words) | others, read)
