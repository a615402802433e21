"""C workers: built with sanitizers around a stub of a sub-model, and run as processes of their own."""

import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from planner.runtime.c.files import engine_files
from planner.runtime.c.worker_files import worker_files
from planner.runtime.device.addresses import Endpoint, resolve
from planner.runtime.engine_folders import ExpectedAnswers, SubModelFacts
from planner.schema import ImageInput
from tests.helpers.raw_peer import PATIENCE_S, REPLY, RawPeer, request
from tests.helpers.stub_fleet import BUNDLE, SHAPE, TOKEN, stub_features, stub_image

NUM_FEATURES = 3
IMAGE = stub_image().tobytes()
FEATURES = stub_features(NUM_FEATURES)(memoryview(IMAGE))
STRICT = "-O1 -g -Wall -Wextra -Wconversion -pedantic -Werror"
SANITIZED = f"{STRICT} -fsanitize=address,undefined -fno-sanitize-recover=all"

# The first pixels as shares of 255, as `stub_features` computes them.
_MODEL_H = """#include "vit.h"
#define MODEL_PRECISION "float32"
#define MODEL_INPUT_BYTES 16
#define MODEL_NUM_FEATURES 3
#define MODEL_ARENA_BYTES 4
extern const vit_model model;
void model_infer(const void *image, float *features, void *arena);
"""
_MODEL_C = """#include "model.h"
const vit_model model;
void model_infer(const void *image, float *features, void *arena) {
  vit_features(&model, image, features, arena, NULL);
}
"""
_VIT_C = """#include "model.h"
void vit_features(const vit_model *m, const void *image, float *features, float *arena, const vit_pause *pause) {
  const unsigned char *pixels = image;
  (void)m;
  *arena = 255.0f;
  for (int i = 0; i < MODEL_NUM_FEATURES; i++) {
    features[i] = (float)pixels[i] / *arena;
    if (pause != NULL) pause->call(pause->context);
  }
}
"""


def write_stub_folder(folder: Path, device: str = "pump", error: float = 0, speaks_tls: bool = False) -> Path:
    """Write the folder of a C worker whose sub-model is a stub, as an export would, and return it.

    Args:
        folder: Folder to make.
        device: Name of the device.
        error: Error of the expected features, as a share of the largest.
        speaks_tls: True for a worker that speaks TLS, whose certificate and key are another's to add.
    """
    images = np.stack([stub_image(seed) for seed in range(2)])
    features = np.stack([np.frombuffer(stub_features(NUM_FEATURES)(image.tobytes()), "<f4") for image in images])
    expected = ExpectedAnswers(images, features * np.float32(1 + error), are_measured=True)
    image = ImageInput.model_validate({"shape": SHAPE, "dtype": "uint8", "preprocessing": {"mean": [0], "std": [1]}})
    about = SubModelFacts(device, BUNDLE, image, "float32", speaks_tls)
    files = worker_files(about, expected, ["model.c", "vit.c"])
    folder.mkdir()
    headers = {name: engine_files()[name] for name in ("kernels.h", "vit.h")}
    for name, text in {**files, **headers, "model.h": _MODEL_H, "model.c": _MODEL_C, "vit.c": _VIT_C}.items():
        (folder / name).write_text(text)
    (folder / "token").write_text(f"{TOKEN.hex()}\n")
    return folder


def build(folder: Path, flags: str = SANITIZED, target: str = "worker", **variables: str) -> Path:
    """Build a target of a C worker's folder, without any warning, and return its path."""
    given = [f"{name}={value}" for name, value in {"CFLAGS": flags, **variables}.items()]
    made = subprocess.run(["make", "-C", str(folder), target, *given], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "warning" not in made.stderr
    return folder / target


def build_impatient(folder: Path, proof_ms: int) -> Path:
    """Build the worker of a folder so that it waits so long for a handshake, and so long for a proof of the token."""
    return build(folder, f"{STRICT} -O0 -DVIT_PROOF_MS={proof_ms}")


def serves(peer: RawPeer, request_id: int = 7) -> bool:
    """Return whether a peer that has proved the token gets the right answer to an image."""
    peer.sock.sendall(request(request_id, IMAGE))
    kind, payload = peer.read()
    reply_id, status, compute_us, total_us = struct.unpack_from("<QBII", payload)
    assert compute_us <= total_us
    return (kind, reply_id, status, payload[17:]) == (REPLY, request_id, 0, FEATURES)


def serves_new(peer: RawPeer) -> bool:
    """Return whether a peer that has just connected gets the right answer to an image."""
    peer.prove()
    return serves(peer)


def has_mbed_tls() -> bool:
    """Return whether this machine can build C workers that speak TLS."""
    return Path("/usr/include/mbedtls/ssl.h").is_file()


def has_compiler() -> bool:
    """Return whether this machine can build C workers."""
    return all(shutil.which(name) for name in ("make", "cc"))


class RunningWorker:
    """C worker that runs, its address and the lines of its log."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self.process, self.lines = process, []
        line = process.stdout.readline()
        assert line.startswith("listening on "), (line, process.stderr and process.stderr.read())
        self.endpoint: Endpoint = resolve(line.split()[-1])
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    lines: list[str]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def wait_for(self, text: str) -> str:
        """Return the first line of the log that has a text."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            for line in list(self.lines):
                if text in line:
                    return line
            time.sleep(0.005)
        raise AssertionError(f"no {text!r} in {self.lines}")

    def join(self) -> None:
        """Wait until the log has ended."""
        self._reader.join(PATIENCE_S)


@contextmanager
def running(program: Path, folder: Path, *arguments: str, emulator: Sequence[str] = ()) -> Iterator[RunningWorker]:
    """Run a C worker on loopback, and have it end without a word of a sanitizer."""
    command = [*emulator, str(program), str(folder), "--listen", "127.0.0.1:0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        worker = RunningWorker(process)
        yield worker
        assert process.poll() is None, worker.lines
        process.terminate()
        assert process.wait(PATIENCE_S) == 0, worker.lines
        worker.join()
        assert not [line for line in worker.lines if "ERROR" in line or "runtime error" in line]
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
