"""Sub-models in C against C that another generator makes of the exported ONNX: they share torch and no more."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from planner.network.export import export_onnx
from planner.network.vit import Shape
from tests.helpers.c_models import NUM_IMAGES, Case, assert_equal_features, build, c_compiler, make_case, run

for package in ("onnxscript", "emx_onnx_cgen"):
    pytest.importorskip(package)

# As a fleet of microcontrollers gets: a block without heads, outputs that fill no panel.
SMALL = make_case(Shape(8, 2, 1, 10, 24, 16, (1, 1, 0, 1), (8, 16, 8, 8)))
OTHERS = [
    make_case(Shape((6, 4), 2, 3, 2, 10, 4, (1, 2), (6, 0), pooling="mean", num_registers=2)),
    make_case(Shape(8, 4, 1, 2, 12, 4, (2,), (5,), distilled=True, activation="relu"), dtype="float32"),
]
_MAIN = """\
#include <stdio.h>
#include "model.c"
int main(void)
{{
    static {dtype} images[1]{sides};
    static float features[1][{features}];
    for (int i = 0; i < {count} && fread(images, sizeof images, 1, stdin) == 1; i++) {{
        model(images, features);
        fwrite(features, sizeof features, 1, stdout);
    }}
    return 0;
}}
"""


def of_other_generator(case: Case, folder: Path) -> NDArray[np.float32]:
    """Return the features (B, E) of a case's images by the other generator's C."""
    import onnx
    from emx_onnx_cgen import Compiler

    export_onnx(case.network, folder / "model.onnx", case.image)
    folder.joinpath("model.c").write_text(Compiler().compile(onnx.load(folder / "model.onnx")))
    sides = "".join(f"[{side}]" for side in case.image.shape)
    c_type = {"uint8": "unsigned char", "float32": "float"}[case.image.dtype]
    shown = {"dtype": c_type, "sides": sides, "features": case.network.shape.embed_dim, "count": NUM_IMAGES}
    folder.joinpath("main.c").write_text(_MAIN.format(**shown))
    subprocess.run([c_compiler(), "-O1", "-w", "main.c", "-lm", "-o", "program"], cwd=folder, check=True)
    sent = case.images.tobytes()
    answered = subprocess.run([folder / "program"], input=sent, stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(answered, "<f4").reshape(NUM_IMAGES, case.network.shape.embed_dim)


@pytest.mark.parametrize("case", [SMALL, *(pytest.param(case, marks=pytest.mark.slow) for case in OTHERS)])
def test_both_generators_agree(case: Case, tmp_path: Path) -> None:
    """Features are alike to 1e-5 of their scale, and ours are torch's."""
    (ours,) = run([case], [build([case], tmp_path / "ours", [c_compiler(), "-O1"])])
    assert_equal_features([case], [ours], tolerance=1e-5)
    theirs = of_other_generator(case, tmp_path)
    assert np.abs(ours.features - theirs).max() <= 1e-5 * np.abs(theirs).max()
