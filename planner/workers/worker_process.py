"""Process of a pool: it answers the calls that arrive on its standard input, and ends when that closes.

Legend of a message: its length [bytes] as a little-endian u64, then a pickle. The first message is the shared data,
each other one a function and its arguments; an answer is whether it is an error, and the result or the error.
"""

import os
import pickle
import sys
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any

_LENGTH_BYTES = 8


def send(stream: IO[bytes], content: bytes) -> None:
    """Write one message."""
    stream.write(len(content).to_bytes(_LENGTH_BYTES, "little") + content)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes:
    """Read one message.

    Raises:
        EOFError: If the other side is gone.
    """
    return _read(stream, int.from_bytes(_read(stream, _LENGTH_BYTES), "little"))


def _read(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content


def answer_calls() -> None:
    """Answer calls until this process is killed or its parent ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever a call prints must not get among the answers.
    others = os.open(os.devnull, os.O_WRONLY) if sys.stderr is None else sys.stderr.fileno()
    os.dup2(others, sys.stdout.fileno())
    messages: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_read_messages, args=(sys.stdin.buffer, messages), daemon=True).start()
    # Safe to unpickle: the parent process made these bytes.
    shared = pickle.loads(messages.get())
    while True:
        send(answers, _answer(shared, messages.get()))


def _read_messages(stream: IO[bytes], messages: "SimpleQueue[bytes]") -> None:
    """Read messages ahead, and end this process as soon as its parent is gone, even in the midst of a call."""
    try:
        while True:
            messages.put(receive(stream))
    except (EOFError, OSError):
        os._exit(1)


def _answer(shared: Any, message: bytes) -> bytes:
    try:
        task, args = pickle.loads(message)
        return pickle.dumps((False, task(shared, *args)))
    except Exception as error:
        return _pickled(error)


def _pickled(error: Exception) -> bytes:
    try:
        content = pickle.dumps((True, error))
        pickle.loads(content)
    # An error may hold what cannot travel.
    except Exception:
        return pickle.dumps((True, RuntimeError(f"{type(error).__name__}: {error}")))
    return content
