"""The C worker as programs: what the Linux one says to its user, and the firmware's example with lwIP's names."""

import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from planner.runtime.device.addresses import Endpoint
from tests.helpers.c_workers import STRICT, RunningWorker, build, running, write_stub_folder
from tests.helpers.raw_peer import PATIENCE_S, REPLY, connected, request
from tests.helpers.stub_fleet import TOKEN, stub_features, stub_image

LWIP = Path(__file__).with_name("lwip_stub")


def run(program: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a worker that ends by itself."""
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE_S)


def test_the_self_test_compares_answers(program: Path, stub_folder: Path, tmp_path: Path) -> None:
    """Right answers: exit code 0. Expected ones that are off by 1/8: exit code 1, and a sentence with both numbers."""
    done = run(program, stub_folder, "--self-test")
    assert (done.returncode, done.stdout) == (0, "")
    assert "self-test passed" in done.stderr
    wrong = build(write_stub_folder(tmp_path / "wrong", error=0.125), STRICT)
    done = run(wrong, tmp_path / "wrong", "--listen", "127.0.0.1:0")
    assert (done.returncode, done.stdout) == (1, "")
    # 0.125 of 1.125.
    assert "self-test failed: answers must be within 0.001 of those expected, got a difference of 0.11." in done.stderr


def test_run_sh_builds_the_worker_first(stub_folder: Path, tmp_path: Path) -> None:
    """From anywhere, once; without a compiler and without a program it says what it needs."""
    folder = write_stub_folder(tmp_path / "pump")
    command = ["sh", str(folder / "run.sh"), "--self-test"]
    for built in (True, False):
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (" -o worker" in done.stderr) == built
    bare = write_stub_folder(tmp_path / "bare")
    (tmp_path / "bin").mkdir()
    for name in ("sh", "dirname"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        ["sh", str(bare / "run.sh")], capture_output=True, text=True, env={"PATH": str(tmp_path / "bin")}
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("The worker needs make and cc here, or a program that was built")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "the folder must be given"),
        (("FOLDER", "--port", "1"), 2, "--port"),
        (("FOLDER", "--listen"), 2, "--listen"),
        (("FOLDER", "--hold", "send=1,wait=2"), 2, "send=1,wait=2"),
        (("FOLDER", "--hold", "send=-1"), 2, "send=-1"),
        (("FOLDER", "--marks", "/nowhere/marks"), 2, "/nowhere/marks"),
        (("FOLDER", "--listen", "somewhere:80"), 1, "must be an IP address and a port, such as 192.168.0.11:7447, got"),
        (("FOLDER", "--listen", "127.0.0.1:65536"), 1, "must be an IP address and a port"),
        (("FOLDER", "--listen", "::1:80"), 1, "must be an IP address and a port"),
        (("FOLDER", "--listen", "192.0.2.1:80"), 1, "192.0.2.1:80: cannot be listened on (Cannot assign requested"),
        (("/nowhere",), 1, "/nowhere/token: must hold the secret of the deployment, 64 hexadecimal digits."),
    ],
)
def test_what_cannot_be_is_said(
    program: Path, stub_folder: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """Wrong arguments, no token, an address that cannot be listened on: a sentence each."""
    done = run(program, *(str(stub_folder) if a == "FOLDER" else a for a in arguments))
    assert done.returncode == code
    assert message in done.stderr.splitlines()[-1]
    assert done.stdout == ""


def test_a_token_must_be_whole(program: Path, tmp_path: Path) -> None:
    """A shorter secret, or one with another letter, is none; its value is not said."""
    for text in (TOKEN.hex()[:-1], "g" * 64, ""):
        (tmp_path / "token").write_text(text)
        done = run(program, tmp_path, "--listen", "127.0.0.1:0")
        assert done.returncode == 1
        assert "must hold the secret" in done.stderr
        assert text[:10] not in done.stderr or not text


def test_a_port_in_use_is_said(worker: RunningWorker, program: Path, stub_folder: Path) -> None:
    """A second worker on the same port is refused in one sentence."""
    done = run(program, stub_folder, "--listen", str(worker.endpoint))
    assert done.returncode == 1
    assert f"{worker.endpoint}: cannot be listened on (Address already in use)." in done.stderr


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::1]:0", "localhost:0"])
def test_addresses(program: Path, stub_folder: Path, address: str) -> None:
    """IPv4, IPv6 in brackets, localhost; beyond loopback the log says that bytes are not encrypted."""
    if "::" in address and not socket.has_ipv6:
        pytest.skip("no IPv6")
    with running(program, stub_folder, "--listen", address) as worker:
        host = "127.0.0.1" if address.startswith("0") else worker.endpoint.host
        with connected(Endpoint(worker.endpoint.family, host, worker.endpoint.port)) as peer:
            peer.prove()
            peer.sock.sendall(request(1, stub_image().tobytes()))
            assert peer.read()[0] == REPLY
        worker.wait_for("served")
        is_said = any("beyond loopback bytes are not encrypted" in line for line in worker.lines)
        assert is_said == (address == "0.0.0.0:0")


@pytest.mark.parametrize(
    ("compiler", "flags", "emulator"),
    [
        ("arm-linux-gnueabi-gcc", "-march=armv6 -mfpu=vfp -mfloat-abi=softfp", ("qemu-arm", "-cpu", "arm1176")),
        ("s390x-linux-gnu-gcc", "", ("qemu-s390x",)),
    ],
    ids=["ARMv6", "big-endian"],
)
def test_a_static_program_for_another_processor_answers(
    compiler: str, flags: str, emulator: tuple[str, ...], tmp_path: Path
) -> None:
    """As the README of a folder builds it for a Pi Zero W; and where the most significant byte of a float is first."""
    if not (shutil.which(compiler) and shutil.which(emulator[0])) and not os.environ.get("CI"):
        pytest.skip(f"no {compiler} or {emulator[0]}")
    folder = write_stub_folder(tmp_path / "pump")
    program = build(folder, f"{STRICT} {flags}", CC=compiler, LDFLAGS="-static")
    image = stub_image()
    with running(program, folder, emulator=emulator) as worker, connected(worker.endpoint) as peer:
        peer.prove()
        peer.sock.sendall(request(2**40, image.tobytes()))
        kind, payload = peer.read()
    assert kind == REPLY
    assert struct.unpack_from("<QB", payload) == (2**40, 0)
    assert payload[17:] == stub_features(3)(memoryview(image.tobytes()))


def test_the_example_for_lwip_answers(tmp_path: Path) -> None:
    """With lwIP's names on top of this machine's sockets, the firmware's task answers as the Linux worker does."""
    folder = write_stub_folder(tmp_path / "pump")
    subprocess.run(["make", "-C", str(folder), "token.h"], check=True, capture_output=True)
    assert f'"{TOKEN.hex()}"' in (folder / "token.h").read_text()
    names = ("example_lwip", "worker", "sha256", "sockets", "vit", "model", "device", "self_test", "expected")
    sources = [*(str(folder / f"{name}.c") for name in names), str(LWIP / "board.c")]
    flags = [*STRICT.split(), "-fsanitize=address,undefined", "-DVIT_LWIP", "-DVIT_PORT=0", f"-I{LWIP}", f"-I{folder}"]
    program = tmp_path / "firmware"
    subprocess.run(["cc", "-std=c99", *flags, *sources, "-o", str(program)], check=True)
    with running(program, folder) as worker, connected(worker.endpoint) as peer:
        peer.prove()
        image = stub_image()
        peer.sock.sendall(request(1, image.tobytes()))
        kind, payload = peer.read()
        assert kind == REPLY
        assert payload[8] == 0
