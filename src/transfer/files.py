"""Files of lines, plain or zstd: one is written whole or not at all, and read in bounded pieces."""

import io
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from errors import FileUnusable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

STANDARD = "-"
MAX_LINE_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 3,
    zstd.CompressionParameter.checksum_flag: 1,
}

Write = Callable[[bytes], object]


@contextmanager
def writing(name: str, *, compress: bool = False) -> Iterator[Write]:
    """A function that writes to the file, or to standard output for "-".

    A file appears under its name, in the place of an older one, when the block ends well. Until
    then it is a hidden file beside it, which is removed if the block fails. What is no ordinary
    file (a pipe, a device) is written to as it is. Raises FileUnusable.
    """
    shown = "standard output" if name == STANDARD else name
    target = Path(os.path.realpath(name))
    whole = name != STANDARD and (target.is_file() or not target.exists())
    with _clear_errors(shown), _replacing(target) if whole else _as_it_is(name) as write:
        if not compress:
            yield _writer(shown, write)
            return
        compressor = zstd.ZstdCompressor(options=_ZSTD_OPTIONS)
        yield _writer(shown, lambda data: write(compressor.compress(data)))
        write(compressor.flush())


@contextmanager
def reading(name: str) -> Iterator[Iterator[tuple[int, bytes | None]]]:
    """The lines of a file, or of standard input for "-", each with its number from 1; None
    stands for one of more than MAX_LINE_BYTES. zstd is known by its first bytes.

    Raises FileUnusable, while reading too: for a zstd file that is cut off, for one.
    """
    with _clear_errors("standard input" if name == STANDARD else name):
        if name == STANDARD:
            yield split_lines(_chunks(sys.stdin.buffer))
            return
        with Path(name).open("rb") as file:
            yield split_lines(_chunks(file))


def split_lines(
    chunks: Iterator[bytes], max_bytes: int = MAX_LINE_BYTES
) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines without their ends. Never holds more of a line than `max_bytes` and a
    chunk."""
    number, held, held_bytes = 1, list[bytes](), 0
    for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            fits = held_bytes + len(end) <= max_bytes
            yield number, b"".join([*held, end]) if fits else None
            number, held, held_bytes = number + 1, [], 0
        held_bytes += len(rest)
        if held_bytes <= max_bytes:
            held.append(rest)
        else:
            held.clear()
    if held_bytes:
        yield number, b"".join(held) if held_bytes <= max_bytes else None


@contextmanager
def _replacing(target: Path) -> Iterator[Write]:
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


@contextmanager
def _as_it_is(name: str) -> Iterator[Write]:
    if name == STANDARD:
        # Not sys.stdout.buffer, which at exit would complain about a closed pipe.
        yield partial(_write_all, sys.stdout.fileno())
        return
    with Path(name).open("wb", buffering=0) as file:
        yield partial(_write_all, file.fileno())


def _write_all(descriptor: int, data: bytes) -> None:
    """A single write to a pipe may take only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    head = _Head(file, file.read(len(_ZSTD_MAGIC)))
    if head.first != _ZSTD_MAGIC:
        while chunk := head.read(_CHUNK_BYTES):
            yield chunk
        return
    with zstd.ZstdFile(head) as content:
        while chunk := content.read(_CHUNK_BYTES):
            yield chunk


class _Head(io.RawIOBase):
    """A file whose first bytes were read already; they come again."""

    def __init__(self, file: BinaryIO, first: bytes) -> None:
        super().__init__()
        self._file = file
        self._again = self.first = first

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if self._again:
            again, self._again = self._again, b""
            return again
        return self._file.read(size)


def _writer(name: str, write: Write) -> Write:
    # Here already: inside a transaction an OSError would be taken for one of the database.
    def guarded(data: bytes) -> None:
        with _clear_errors(name):
            write(data)

    return guarded


@contextmanager
def _clear_errors(name: str) -> Iterator[None]:
    """Turns what the system and zstd raise into FileUnusable."""
    try:
        yield
    except BrokenPipeError:
        raise FileUnusable(f"{name}: closed by its reader") from None
    except OSError as error:
        raise FileUnusable(f"{name}: {error.strerror or error}") from error
    except (EOFError, zstd.ZstdError) as error:
        raise FileUnusable(f"{name}: not a whole zstd file ({error})") from error
