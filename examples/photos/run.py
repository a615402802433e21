"""From a pretrained ViT and photographs to answers of four boards: `make example-photos`.

Imports the checkpoint, plans with the shipped profile, cuts and recovers the sub-models, tests and rehearses them. What
is there already, in build/photos, is not done again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "photos"
PROFILE = "dinov2-small-caltech101"
# Latency of each fleet in which as many answers as possible are to be right [ms].
MAX_LATENCY_MS = {"four-pis": 80, "jetson-and-pis": 20}
ADVICE = f"see {(HERE / 'README.md').relative_to(ROOT)}"


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder with the checkpoint, model.safetensors, and its config.json")
    parser.add_argument("--photos", help="folder with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--fleet", default="four-pis", choices=MAX_LATENCY_MS, help="fleet of this folder [four-pis]")
    parser.add_argument("--minutes", help="time for retraining; recovery in closed form alone unless given")
    options = parser.parse_args()
    checkpoint = _found(options.model, "MODEL", "model.safetensors", "the checkpoint")
    train = _found(options.photos, "PHOTOS", "train", "the photographs")
    card, plan = BUILD / "card.json", BUILD / options.fleet / "plan.json"
    bundle, devices = plan.with_name("bundle"), HERE / f"{options.fleet}.json"
    if not card.exists():
        _planner("import", checkpoint, "--out", BUILD)
        _complete(card, train.parent)
    goal = "--objective", "accuracy", "--max-latency-ms", MAX_LATENCY_MS[options.fleet]
    _planner("solve", "--profile", PROFILE, "--devices", devices, *goal, "--out", plan)
    effort = ["--minutes", options.minutes] if options.minutes else ["--epochs", "0"]
    _planner("execute", plan, "--profile", PROFILE, "--model", card, *effort, "--out", bundle)
    _planner("evaluate", bundle, "--devices", devices)
    _planner("rehearse", bundle, "--devices", devices, "--out", plan.with_name("rehearsal.json"))


def _found(folder: str | None, variable: str, name: str, what: str) -> Path:
    """Return what is called so in a folder that the user named, or end with a sentence that says what is missing."""
    if not folder:
        sys.exit(f"{what} must be named: make example-photos {variable}=FOLDER; {ADVICE}.")
    path = Path(folder).resolve() / name
    if not path.exists():
        sys.exit(f"{what} must be in {variable}, got no {name} in {folder}; {ADVICE}.")
    return path


def _complete(card: Path, photos: Path) -> None:
    """Add to an imported card what weights do not show: where the images are, and how accurate the model is."""
    known = json.loads((HERE / "card-additions.json").read_text())
    parts = {part: str(photos / part) for part in ("train", "test")}
    fields = json.loads(card.read_text()) | known | {"data": {"source": "folder", **parts}}
    card.write_text(json.dumps(fields, indent=1) + "\n")


def _planner(*arguments: object) -> None:
    """Run a command of the planner, and end where it fails."""
    words = [str(argument) for argument in arguments]
    print("\n$ planner", *words, flush=True)
    command = [sys.executable, "-c", "from planner.cli import app; app()", *words]
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)


if __name__ == "__main__":
    main()
