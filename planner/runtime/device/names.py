"""Names that export, aggregator and worker agree on: files of a device folder, and types of an image's values."""

from __future__ import annotations

from typing import Any

import numpy as np

MANIFEST, EXPECTED = "manifest.json", "expected.npz"
TOKEN, CERTIFICATE, KEY = "token", "certificate.pem", "key.pem"

DTYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype("u1"), "float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
"""Type of an image's values, by its name in manifests."""
