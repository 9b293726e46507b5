"""Results on disk: whatever is cut off or altered, what is left is what was written."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.cli.parts import open_to_read, open_to_write, temporary
from tdxreclaim.errors import HostReadError, MalformedInputError, OutputError

if TYPE_CHECKING:
    from pathlib import Path

HEADER = {"schema": "x", "text": 'ä "quoted"\n'}
CHUNKS = {n: {"tally": {"n": n}, "rows": "a,b\n" * n} for n in (3, 0, 7, 1)}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("log") / "log"
    with open_to_write(str(path)) as part:
        part.start(HEADER)
        for number, document in CHUNKS.items():
            part.add(number, document)
    return path.read_bytes()


def test_it_reads_what_it_wrote(log: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(log)
    with open_to_read(str(path)) as part:
        assert part.header == HEADER
        assert part.chunks == set(CHUNKS)
        assert part.chunk(7) == {"chunk": 7, **CHUNKS[7]}
        lines = list(part.lines())
    assert [json.loads(line.partition(" ")[2]).get("chunk") for line in lines] == [None, 0, 1, 3, 7]
    assert sorted("".join(lines).encode().splitlines()) == sorted(log.splitlines())


@given(data=st.data())
def test_what_is_cut_off_is_written_again(
    data: st.DataObject, log: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "log"
    path.write_bytes(log[: data.draw(st.integers(0, len(log)))])
    with open_to_write(str(path)) as part:
        part.start(HEADER)
        for number, document in CHUNKS.items():
            part.add(number, document)
    assert path.read_bytes() == log


@given(data=st.data())
def test_what_is_altered_is_not_believed(
    data: st.DataObject, log: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = data.draw(st.integers(len(log.splitlines()[0]) + 1, len(log) - 1))
    path = tmp_path_factory.mktemp("bad") / "log"
    path.write_bytes(log[:place] + bytes([log[place] ^ 1]) + log[place + 1 :])
    with open_to_write(str(path)) as part:
        part.start(HEADER)
        assert all(part.chunk(n) == {"chunk": n, **CHUNKS[n]} for n in part.chunks)
        assert part.chunks < set(CHUNKS)
        for number, document in CHUNKS.items():
            part.add(number, document)
    with open_to_read(str(path)) as part:
        assert part.chunks == set(CHUNKS)


def test_a_chunk_that_comes_twice_counts_once(tmp_path: Path) -> None:
    with open_to_write(str(tmp_path / "log")) as part:
        part.start(HEADER)
        part.add(1, {"rows": "first"})
        part.add(1, {"rows": "second"})
        assert part.chunk(1)["rows"] == "first"


@pytest.mark.parametrize("text", [b"", b"hello\n", b"0123456789abcdef {}\n", b"[" * 9999])
def test_what_is_no_such_file(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(text)
    with pytest.raises(MalformedInputError):
        open_to_read(str(path))
    with pytest.raises(HostReadError):
        open_to_read(str(tmp_path / "none"))
    if text:
        with open_to_write(str(path)) as part, pytest.raises(OutputError):
            part.start(HEADER)
    assert path.read_bytes() == text


@pytest.mark.parametrize("data", [b"[" * 100_000, b"nul", b"3", b'{"chunk": "x"}', b"{}"])
def test_a_line_that_is_signed_and_makes_no_sense_ends_the_file(
    data: bytes, log: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    digest = blake2b(data, digest_size=8).hexdigest().encode()
    path.write_bytes(b"".join(log.splitlines(keepends=True)[:2]) + digest + b" " + data + b"\n")
    with open_to_read(str(path)) as part:
        assert part.chunks == {3}


def test_a_file_that_changes_while_it_is_read_is_not_believed(log: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(log)
    with open_to_read(str(path)) as part:
        path.write_bytes(log.replace(b"a,b", b"a,c"))
        with pytest.raises(HostReadError, match="changed"):
            part.chunk(7)


def test_without_a_name_nothing_is_left(tmp_path: Path) -> None:
    with temporary("results") as part:
        part.start(HEADER)
        part.add(1, {"rows": "x"})
        assert part.chunk(1)["rows"] == "x"
    assert list(tmp_path.iterdir()) == []
