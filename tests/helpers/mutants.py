"""Seeded mutants of files, and the criteria of an honest answer to each: accepted, or refused in one sentence."""

import copy
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from planner.errors import PlannerError
from planner.units import visible

# What a value is replaced with: each once broke a program somewhere.
HOSTILE_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    0.5,
    2.0,
    10**12,
    2**63,
    10**30,
    1e308,
    -1e308,
    5e-324,
    "",
    " ",
    "a\0b",
    "x" * 5000,
    "x" * 100_000,
    "\u202eevil",
    "\x1b[2J",
    "\x85\x9b31m",
    "../../etc/passwd",
    "/dev/zero",
    "512Mi",
    "=cmd|' /C calc'!A0",
    "é",
    "e\u0301",
    "\u200b",
    "__class__",
    [],
    {},
    [[]],
    {"name": None},
    [None] * 3,
)
HOSTILE_TEXTS = (b"\xef\xbb\xbf", b"\0", b"\xff", b"{", b"]", b'"', b"9" * 5000, b"[" * 3000, b"1e999", b"\n", b"NaN")
HOSTILE_BYTES = (b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff\xff\xff\xff\xff", b"\x80", b"9" * 30)

MAX_MESSAGE = 500

# In the default run, and with the slow tests.
FEW, MANY = 300, 3000


def mutants_of_document(data: Any, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield mutants of a JSON document: most with a changed value or key, some with changed text."""
    rng = random.Random(seed)
    text = json.dumps(data, ensure_ascii=False).encode()
    for i in range(count):
        if i % 4 == 3:
            yield mutated_bytes(text, rng, HOSTILE_TEXTS)
        else:
            mutant = copy.deepcopy(data)
            for _ in range(rng.choice((1, 1, 1, 2))):
                if mutant:
                    _change_a_node(mutant, rng)
            yield json.dumps(mutant).encode()


def mutants_of_bytes(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield mutants of a binary file."""
    rng = random.Random(seed)
    for _ in range(count):
        yield mutated_bytes(content, rng, HOSTILE_BYTES)


def mutated_bytes(content: bytes, rng: random.Random, hostile: tuple[bytes, ...]) -> bytes:
    """Return the bytes with one change; half of all changes are near the beginning, where headers are."""
    size = len(content)
    at = rng.randrange(min(size, 200) if rng.random() < 0.5 else size)
    end = min(size, at + rng.choice((1, 2, 8, 100)))
    match rng.randrange(5):
        case 0:
            return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
        case 1:
            return content[:at]
        case 2:
            return content[:at] + content[end:]
        case 3:
            return content[:at] + content[at:end] * rng.choice((2, 50)) + content[end:]
        case _:
            new = rng.choice(hostile)
            return content[:at] + new + content[at + rng.choice((0, len(new))) :]


def _change_a_node(data: Any, rng: random.Random) -> None:
    """Change one value or key of a document in place, at any depth alike."""
    parent, key = _drawn_place(data, rng)
    match rng.randrange(8):
        case 0 if isinstance(parent, dict):
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[rng.choice(("xyzzy", "a\0b", "\x1b[1m", "k" * 5000, key + "s"))] = parent.pop(key)
        case 2 if isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        case 3 if isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
            parent[key] = parent[key] * rng.choice((-1, 2, 1000, 10**9, 0.5)) + rng.choice((0, 1))
        case _:
            parent[key] = copy.deepcopy(rng.choice(HOSTILE_VALUES))


def _drawn_place(data: Any, rng: random.Random) -> tuple[Any, Any]:
    """Draw a way down from the root, each step as likely as the others, so that long lists do not take all draws."""
    parent, key = data, rng.choice(list(data))
    while isinstance(parent[key], dict | list) and parent[key] and rng.random() < 0.85:
        parent = parent[key]
        key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
    return parent, key


def outcome(action: Callable[[], object], named: Path, refusals: tuple[type[Exception], ...] = (PlannerError,)) -> str:
    """Return "accepted" or "refused", or the fault: an error of another kind, or a sentence that helps nobody."""
    try:
        action()
    except refusals as error:
        return _fault_of(str(error), named) or "refused"
    except Exception as error:
        return f"fault: {type(error).__name__}: {str(error)[:200]!r}"
    return "accepted"


def _fault_of(message: str, named: Path) -> str | None:
    """Return what is wrong with a message; None if it is one visible sentence about the file."""
    if len(message) > MAX_MESSAGE:
        return f"fault: message of {len(message)} characters: {message[:120]!r}"
    if visible(message) != message:
        return f"fault: invisible characters in {message[:300]!r}"
    if named.name not in message:
        return f"fault: message that does not name {named.name}: {message!r}"
    return None


def assert_honest(
    path: Path, mutants: Iterator[bytes], action: Callable[[], object], named: Path | None = None, **options: Any
) -> None:
    """Write each mutant to a file and act: each is accepted, or refused in a sentence, and some are refused."""
    found: Counter[str] = Counter()
    for mutant in mutants:
        path.write_bytes(mutant)
        found[outcome(action, named or path, **options)] += 1
    assert not [fault for fault in found if fault.startswith("fault")], found
    assert found["refused"]
