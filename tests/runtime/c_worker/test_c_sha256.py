"""SHA-256 and HMAC-SHA-256 in C beside Python's."""

import ctypes
import hashlib
import hmac
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import planner.runtime.c

SOURCE = Path(planner.runtime.c.__file__).with_name("sha256.c")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The C file as a library."""
    file = tmp_path_factory.mktemp("sha256") / "sha256.so"
    subprocess.run(["cc", "-std=c99", "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(file)], check=True)
    return ctypes.CDLL(str(file))


@given(parts=st.lists(st.binary(max_size=150), max_size=4))
@settings(max_examples=100, deadline=None)
def test_sha256_is_that_of_hashlib(library: ctypes.CDLL, parts: list[bytes]) -> None:
    """Of any bytes, however they come in pieces; blocks have 64, and a length of 56 to 63 takes one more."""
    state, digest = ctypes.create_string_buffer(256), ctypes.create_string_buffer(32)
    library.sha256_begin(state)
    for part in parts:
        library.sha256_add(state, part, ctypes.c_size_t(len(part)))
    library.sha256_end(state, digest)
    assert digest.raw == hashlib.sha256(b"".join(parts)).digest()


@pytest.mark.parametrize("size", [0, 1, 54, 55, 56, 57, 63, 64, 65, 119, 120, 128, 100_000])
def test_sha256_at_the_borders_of_blocks(library: ctypes.CDLL, size: int) -> None:
    """Sizes around one and two blocks, and a long one."""
    content, digest = bytes(range(256)) * (size // 256 + 1), ctypes.create_string_buffer(32)
    state = ctypes.create_string_buffer(256)
    library.sha256_begin(state)
    library.sha256_add(state, content[:size], ctypes.c_size_t(size))
    library.sha256_end(state, digest)
    assert digest.raw == hashlib.sha256(content[:size]).digest()


@given(key=st.binary(max_size=140), message=st.binary(max_size=140))
@settings(max_examples=100, deadline=None)
def test_hmac_is_that_of_hmac(library: ctypes.CDLL, key: bytes, message: bytes) -> None:
    """Keys shorter than a block, of its size, and longer."""
    digest, sizes = ctypes.create_string_buffer(32), [ctypes.c_size_t(len(part)) for part in (key, message)]
    library.hmac_sha256(key, sizes[0], message, sizes[1], digest)
    assert digest.raw == hmac.new(key, message, hashlib.sha256).digest()
