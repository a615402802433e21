"""Files of a C worker beside its sub-model: sources, device and expected answers as C, Makefile, run.sh, README.

Legend: B images, ch channels, H height, W width, F features.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.runtime.deployment import RUN
from planner.runtime.engine_folders import ExpectedAnswers, SubModelFacts
from planner.schema.deployment import BYTES_PER_VALUE
from planner.units import visible

MAKEFILE, README, PROGRAM = "Makefile", "README.md", "worker"
# Largest difference from the expected features, as a share of the largest of them: other processors add up in another
# order; of torch's in float32, weights in int8 are as far away as their steps are wide.
_TOLERANCE = 1e-3
_TOLERANCE_OF_TORCH = {"float32": _TOLERANCE, "int8": 0.5}
_TLS_SOURCES = ("tls.h", "tls.c")
_SOURCES = (
    "worker.h",
    "worker.c",
    "sha256.h",
    "sha256.c",
    "sockets.h",
    "sockets.c",
    "address.h",
    "address.c",
    "self_test.h",
    "self_test.c",
    "posix.c",
    "example_lwip.c",
)
_DEVICE_H = """#ifndef VIT_DEVICE_H
#define VIT_DEVICE_H

#include "worker.h"

extern const vit_device DEVICE;

#endif
"""
_EXPECTED_H = """#ifndef VIT_EXPECTED_H
#define VIT_EXPECTED_H

#define NUM_EXPECTED {count}
#define EXPECTED_TOLERANCE {tolerance}f
extern const {dtype} EXPECTED_IMAGES[NUM_EXPECTED][{values}];
extern const float EXPECTED_FEATURES[NUM_EXPECTED][{features}];

#endif
"""
_RUN = """#!/bin/sh
# Starts the worker of this folder: sh run.sh [--listen HOST:PORT] [--self-test]
# It is built first if that was not done; `make` tells how to build it elsewhere.
folder=$(dirname "$0")
if ! test -x "$folder/{program}" && ! make -C "$folder" {program} >&2; then
  echo "The worker needs {needs} here, or a program that was built elsewhere for this board (see Makefile)." >&2
  exit 1
fi
exec "$folder/{program}" "$folder" "$@"
"""
_README = """# {device}

A {precision} sub-model in C, and a worker that answers with it.

On Linux: `sh run.sh --self-test`, then `sh run.sh --listen 0.0.0.0:7447`. It builds `worker` first, with {needs};
to build it on another machine, see the Makefile. The worker needs nothing but this folder's {secrets}.

{rest}"""
_PLAIN_README = """\
In a firmware: `make token.h`, add the files that example_lwip.c names, and call `vit_task`. RAM: MODEL_ARENA_BYTES,
MODEL_INPUT_BYTES and 4 bytes for each of MODEL_NUM_FEATURES (model.h), and a stack of 4 KiB.

Bytes are not encrypted: who sees the network sees images and features. Without the token nobody is answered.
"""
_TLS_README = """\
Beyond loopback all is encrypted: the worker speaks TLS with `certificate.pem` and `key.pem`, by Mbed TLS, and the
aggregator accepts that certificate alone. Without the token nobody is answered. Debian, Ubuntu and Raspberry Pi OS have
Mbed TLS in `libmbedtls-dev`; a program that was built with `LDFLAGS=-static` does without it on the board.

For a firmware, which has no TLS, export without `--tls`: the aggregator does not speak plainly to this device.
"""
_TLS_VARIABLE = """\
# Beyond loopback the worker speaks TLS, by Mbed TLS (sudo apt install libmbedtls-dev). `make TLS=` builds one that does
# without and is of use on loopback alone: beyond it, the aggregator does not speak plainly to this device.
TLS := 1"""
_PLAIN_NEEDS, _TLS_NEEDS = "make and cc", "make, cc and Mbed TLS (sudo apt install build-essential libmbedtls-dev)"


def worker_files(about: SubModelFacts, expected: ExpectedAnswers, model_sources: Sequence[str]) -> dict[str, str]:
    """Return the text of each file of a C worker by its name; those of the sub-model come beside them.

    Args:
        about: The sub-model that it answers with.
        expected: Answers for the self-test.
        model_sources: Names of the sub-model's own C files, which the Makefile builds.
    """
    tls = about.speaks_tls
    fixed = {name: _text(name) for name in (*_SOURCES, *(_TLS_SOURCES if tls else ()))}
    num_images, num_features = expected.features.shape
    hello = _hello(about, num_features)
    c_type = "unsigned char" if about.image.dtype == "uint8" else "float"
    values = expected.images.reshape(num_images, -1)
    tolerance = _TOLERANCE if expected.are_measured else _TOLERANCE_OF_TORCH[about.precision]
    shown = {"count": num_images, "tolerance": f"{tolerance:.1e}", "dtype": c_type}
    return fixed | {
        "device.h": _DEVICE_H,
        "device.c": _device(hello, about, num_features),
        "expected.h": _EXPECTED_H.format(**shown, values=values.shape[1], features=num_features),
        "expected.c": _expected(c_type, values, expected.features),
        RUN: _RUN.format(program=PROGRAM, needs=_TLS_NEEDS if tls else _PLAIN_NEEDS),
        README: _readme(about),
        MAKEFILE: _makefile(tls, model_sources),
    }


def _readme(about: SubModelFacts) -> str:
    tls = about.speaks_tls
    return _README.format(
        device=visible(about.device),
        precision=about.precision,
        needs="`make`, `cc` and Mbed TLS (`libmbedtls-dev`)" if tls else "`make` and `cc`",
        secrets="`token`, `certificate.pem` and `key.pem`" if tls else "`token`",
        rest=_TLS_README if tls else _PLAIN_README,
    )


def _makefile(tls: bool, model_sources: Sequence[str]) -> str:
    text = _text("Makefile.device").replace("@MODEL@", " ".join(model_sources))
    # Without a value of its own, the environment's would count.
    return text.replace("@TLS@", _TLS_VARIABLE if tls else "TLS :=")


def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _hello(about: SubModelFacts, num_features: int) -> str:
    told = {"device": about.device, "engine": "c", "precision": about.precision}
    sent = {"shape": list(about.image.shape), "dtype": about.image.dtype}
    return json.dumps({**told, "input": sent, "features": num_features}, separators=(",", ":"))


def _device(hello: str, about: SubModelFacts, num_features: int) -> str:
    # A question mark may begin a trigraph.
    quoted = json.dumps(hello).replace("?", "\\?")
    digits = ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(about.bundle))
    image = about.image
    fields = (quoted, f"{{{digits}}}", image.num_bytes, BYTES_PER_VALUE[image.dtype], num_features)
    return '#include "device.h"\n\nconst vit_device DEVICE = {{\n  {}\n}};\n'.format(",\n  ".join(map(str, fields)))


def _expected(c_type: str, images: NDArray[Any], features: NDArray[np.float32]) -> str:
    def rows(arrays: Iterable[NDArray[Any]]) -> str:
        return ",\n".join("{" + ",".join(map(_c_value, array.tolist())) + "}" for array in arrays)

    arrays = ((f"{c_type} EXPECTED_IMAGES", images), ("float EXPECTED_FEATURES", features))
    parts = [f"const {name}[NUM_EXPECTED][{a.shape[1]}] = {{\n{rows(a)}}};\n" for name, a in arrays]
    return "\n".join(['#include "expected.h"\n', *parts])


def _c_value(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value.hex()}f"
