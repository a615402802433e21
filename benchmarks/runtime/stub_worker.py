"""A worker without a model, in a process of its own; arguments: name, number of features, channels, side of images."""

import sys

from planner.runtime.device.addresses import resolve
from planner.runtime.device.worker import Served, Worker

BUNDLE, TOKEN = bytes(32), bytes(32)


def main(name: str, num_features: int, channels: int, side: int) -> None:
    """Answer every image with the same features until the process is killed."""
    image = {"shape": [channels, side, side], "dtype": "uint8"}
    about = {"device": name, "input": image, "features": num_features}
    features = bytes(4 * num_features)
    served = Served(BUNDLE, TOKEN, about, channels * side**2, lambda image: features)
    worker = Worker(served, resolve("127.0.0.1:0"), None, lambda line: None)
    print(worker.endpoint, flush=True)
    worker.run()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
