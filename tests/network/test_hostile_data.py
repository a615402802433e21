"""Data files that were made to harm: what they declare is compared before it is believed, whatever it is."""

import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from planner import image_files
from planner.array_files import read_arrays
from planner.errors import InputError
from planner.image_files import decode_image
from planner.network import data
from tests.helpers.image_files import IDX, NPZ, card, idx, pixels, write_idx

# What a refusal may take: some copies of a small file, and no part of what it declares.
_MAX_BYTES = 32 * 2**20


def header(shape: str, dtype: str = "|u1", version: int = 1) -> bytes:
    """Return the header of a .npy file."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text


def archive(content: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return an .npz file whose images have this content, and four labels."""
    file, labels = io.BytesIO(), io.BytesIO()
    np.save(labels, np.array([0, 1, 1, 0]))
    with zipfile.ZipFile(file, "w", compression) as out:
        out.writestr("images.npy", content)
        out.writestr("labels.npy", labels.getvalue())
    return file.getvalue()


def encrypted() -> bytes:
    """Return an archive that says its entries are encrypted."""
    content = bytearray(archive(header("(4, 4, 4)") + bytes(64)))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(mark, at + 1)
    return bytes(content)


def packed_zeros() -> bytes:
    """Return an archive of images that say in both places that they unpack to 3 GiB.

    The zeros themselves need not be there, since nothing is unpacked.
    """
    shape = "(3, 32768, 32768)"
    content = bytearray(archive(header(shape)))
    at = content.find(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 3 * 2**30 + len(header(shape)))
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: archive(header("(4, 4, 4)")), "'images' must have as many bytes as uint8 of shape"),
        (lambda: archive(header(f"({10**18}, 4, 4)") + bytes(64)), "must have as many bytes as uint8 of shape"),
        (lambda: archive(header(f"({10**30}, 4, 4)") + bytes(64)), "must have as many bytes as uint8 of shape"),
        (lambda: archive(header("(-4, -4, 4)") + bytes(64)), "must have as many bytes as uint8 of shape"),
        (lambda: archive(header("(2, 2, 2)", "<m8[s]") + bytes(64)), r"plain arrays, got timedelta64\[s\] in"),
        (lambda: archive(header("(2, 2, 2)", "|O") + bytes(64)), r"plain arrays, got object in"),
        (lambda: archive(header("(4, 4, 4)", version=9) + bytes(64)), "a damaged one or another kind"),
        (lambda: archive(header("(" * 200 + ")" * 200) + bytes(64)), "a damaged one or another kind"),
        (lambda: archive(b"\x93NUMPY\x02\0" + struct.pack("<I", 2**32 - 1) + b" " * 10**6), "a damaged one"),
        (lambda: archive(header("(4, 4, 4)") + bytes(64), zipfile.ZIP_LZMA), "got another compression"),
        (lambda: archive(header("(4, 4, 4)") + bytes(64), zipfile.ZIP_BZIP2), "got another compression"),
        (encrypted, "'images' must not be encrypted"),
        (packed_zeros, r"arrays must take at most 2\.0 GiB unpacked, got 3\.0 GiB"),
    ],
)
def test_archives_that_are_not_what_they_say(tmp_path: Path, content: Callable[[], bytes], reason: str) -> None:
    """Headers that lie, entries that nobody can read, and sizes beyond the ceiling: refused without unpacking."""
    path = tmp_path / "train.npz"
    path.write_bytes(content())
    read = card(tmp_path, NPZ)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=rf"train\.npz: .*({reason})"):
            data.load(read, "train")
        assert tracemalloc.get_traced_memory()[1] < _MAX_BYTES
    finally:
        tracemalloc.stop()


def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path) -> None:
    """Any order of axes and bytes, stored or deflated, is what numpy itself returns."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "plain": rng.integers(0, 256, (3, 4, 5), dtype=np.uint8),
        "turned": np.asfortranarray(rng.normal(size=(3, 4))),
        "big-endian": rng.integers(0, 1000, 7).astype(">i4"),
        "scalar": np.array(3.5, dtype=np.float16),
        "none": np.zeros((0, 3), dtype=bool),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        read = read_arrays(tmp_path / "a.npz")
        assert list(read) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[name], array)
            assert read[name].dtype == array.dtype.newbyteorder("=")
            assert read[name].flags.writeable


def test_a_damaged_array_is_noticed(tmp_path: Path) -> None:
    """The checksum of the archive is compared."""
    np.savez(tmp_path / "a.npz", x=np.arange(1000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[4000] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match="got a damaged one"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bytes([0, 0, 8, 3]) + struct.pack(">III", 2**16, 2**10, 2**10), "at most 2.0 GiB, got 65536 x 1024 x 1024"),
        (idx(pixels(4)) + bytes(10**8), r"must have 4 x 4 x 4 bytes behind its header, got at least 65600"),
    ],
)
def test_idx_files_are_unpacked_no_further_than_they_say(
    tmp_path: Path, content: bytes, reason: str, zipped: bool
) -> None:
    """A gzip of zeros behind the images costs nothing, nor does a header of 64 GiB."""
    write_idx(tmp_path)
    (tmp_path / "ti").write_bytes(gzip.compress(content, 1) if zipped else content)
    read = card(tmp_path, IDX)
    del content
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=rf"ti: .*{reason}"):
            data.load(read, "train")
        assert tracemalloc.get_traced_memory()[1] < _MAX_BYTES
    finally:
        tracemalloc.stop()


def test_images_of_absurd_size_are_refused_by_their_header(tmp_path: Path) -> None:
    """A PNG of a few bytes that says it has 16,000 x 8,000 pixels is not decoded."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 16_000, 5_000, 8, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")))
    with pytest.raises(InputError, match=r"a\.png: must have at most 50,000,000 pixels, got 16000 x 5000"):
        decode_image(path, path, "a test")


def test_whatever_pillow_raises_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged file can end in any exception of any format's reader."""
    Image.new("L", (4, 4)).save(tmp_path / "a.png")

    def fail(file: object) -> None:
        raise struct.error("unpack requires a buffer of 4 bytes")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(InputError, match=r"a\.png: must be an image that Pillow can read, got one that is damaged"):
        image_files.decode_image(tmp_path / "a.png", tmp_path / "a.png", "a test")
