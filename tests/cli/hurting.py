"""Ways to hurt a file, as disks, programs and people do."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

from unibound import UsageError

Hurt = Callable[[bytes, random.Random], bytes]


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def cut_at_a_line(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(lines[: chance.randrange(len(lines))])


def empty(content: bytes, chance: random.Random) -> bytes:
    return b""


def flip(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def zero(content: bytes, chance: random.Random) -> bytes:
    """A page that was never written."""
    at = chance.randrange(len(content)) // 512 * 512
    return content[:at] + bytes(len(content[at : at + 512])) + content[at + 512 :]


def zero_all(content: bytes, chance: random.Random) -> bytes:
    return bytes(len(content))


def noise(content: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(content)), chance.randrange(1, 200)
    return content[:at] + chance.randbytes(size) + content[at + size :]


def digit(content: bytes, chance: random.Random) -> bytes:
    """Another number, in its place."""
    places = [at for at, byte in enumerate(content) if byte in b"0123456789"]
    if not places:
        return content + b"0"
    at = chance.choice(places)
    return content[:at] + b"%d" % ((content[at] - 47) % 10) + content[at + 1 :]


def negative(content: bytes, chance: random.Random) -> bytes:
    places = [at for at, byte in enumerate(content) if byte in b" :=" and content[at + 1 : at + 2].isdigit()]
    if not places:
        return b"-" + content
    at = chance.choice(places) + 1
    return content[:at] + b"-" + content[at:]


def doubled(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    at = chance.randrange(len(lines))
    return b"".join([*lines[:at], lines[at], *lines[at:]])


def longer(content: bytes, chance: random.Random) -> bytes:
    return content + chance.choice([b"\0" * 100, b"{", b"\n", b"[[[[" * 20_000, b"nan", b'{"done": 1e999}\n'])


def nested(content: bytes, chance: random.Random) -> bytes:
    return b'{"a":' * 100_000


def other(content: bytes, chance: random.Random) -> bytes:
    return chance.choice([b"null\n", b"[]\n", b"{}\n", b'"text"\n', b"NaN\n", b"\xff\xfe\n", b"1e999\n", b"-1\n"])


WAYS: list[Hurt] = [
    cut, cut_at_a_line, empty, flip, zero, zero_all, noise, digit, negative, doubled, longer, nested, other,
]  # fmt: skip


def files(folder: Path) -> list[Path]:
    """What a run keeps and reads again, without pictures."""
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and path.suffix != ".png" and path.name != ".lock"
    )


def die(path: Path) -> None:
    """End this process as the kernel does where memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(path: Path) -> None:
    """Fail as whoever is asked for something that cannot be."""
    raise UsageError("too many cooks")
