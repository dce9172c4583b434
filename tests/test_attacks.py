"""Claims about `attacks`: behind the walls each fails and changes nothing, and many succeed without walls."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import attacks
import pytest
from attacks import ATTACKS, INNOCENT, Attack, World

from prorl_study.domains import Verdict
from prorl_study.verification import Limits, VerificationPool, handle

LIMITS = Limits(cpu_seconds=1.0, wall_seconds=4.0, memory_mb=256, output_bytes=100_000, answer_chars=20_000)
VARIABLE = "PRORL_ATTACK_SECRET"
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
DEMONSTRATED = [attack for attack in ATTACKS if attack.demonstration]


@dataclass(frozen=True)
class Surroundings:
    """The attacks' targets and those who watch them."""

    world: World
    folders: tuple[Path, ...]
    listeners: tuple[socket.socket, ...]
    keys: bool
    """Whether the secret is in the session's keyring, too."""

    def state(self) -> list[object]:
        """All that no attack may change."""
        files = [path for folder in self.folders for path in sorted(folder.rglob("*"))]
        return [
            [(path, path.read_bytes() if path.is_file() else b"") for path in files],
            CORE_PATTERN.read_text(),
            os.uname().nodename,
            self.heard(),
        ]

    def heard(self) -> bool:
        """Whether somebody spoke to a listener since the last time."""
        found = False
        for listener in self.listeners:
            with suppress(BlockingIOError):
                if listener.type == socket.SOCK_STREAM:
                    listener.accept()[0].close()
                else:
                    listener.recv(99)
                found = True
        return found


def keep_in_session(secret: str) -> bool:
    """Put the secret into the session's keyring, as a login may have done; False where there is none.

    A session belongs to a thread: to be called in the one that starts workers.
    """
    libc = ctypes.CDLL(None)
    join, add = {"x86_64": (250, 248), "aarch64": (219, 217)}[os.uname().machine]
    libc.syscall(join, 1, None)  # a new one, so that the user's own is left alone
    return libc.syscall(add, b"user", b"prorl-attack-secret", secret.encode(), len(secret), -3) > 0


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory) -> Iterator[Surroundings]:
    folder = tmp_path_factory.mktemp("host")
    home = Path(tempfile.mkdtemp(prefix=".prorl-attacks-", dir=Path.home()))
    secret = secrets.token_hex(16)
    kept = ctypes.create_string_buffer(secret.encode())
    for place in (folder, home):
        (place / "secret").write_text(secret)
    abstract = f"\0prorl-attacks-{secrets.token_hex(8)}"
    kinds = (
        (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
        (socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "socket")),
        (socket.AF_UNIX, socket.SOCK_STREAM, abstract),
    )
    listeners = []
    for family, kind, address in kinds:
        listener = socket.socket(family, kind)
        listener.bind(address)
        listener.setblocking(False)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        listeners.append(listener)
    known = {
        "SECRET_FILE": str(folder / "secret"),
        "HOME_FILE": str(home / "secret"),
        "OUTSIDE": str(folder / "made"),
        "REPOSITORY": str(attacks.ROOT),
        "TRAP": str(folder / "trap"),
        "TCP": listeners[0].getsockname()[1],
        "UDP": listeners[1].getsockname()[1],
        "SOCKET": str(folder / "socket"),
        "ABSTRACT": abstract,
        "STUDY": os.getpid(),
        "ADDRESS": ctypes.addressof(kept),
    }
    hidden = tuple(f"expected-{secrets.token_hex(8)}" for _ in range(2))
    world = World(secret, hidden, known, folder / "trap")
    with pytest.MonkeyPatch.context() as patch, open(folder / "secret"):
        patch.setenv(VARIABLE, secret)
        keys = handle._starter(os.getpid()).submit(keep_in_session, secret).result()
        other = subprocess.Popen(["sleep", "600"])  # another process of the study, with its environment
        yield Surroundings(world, (folder, home), tuple(listeners), keys)
        other.kill()
        other.wait()
    for listener in listeners:
        listener.close()
    shutil.rmtree(home)


class Keeper:
    """One pool for many tests, replaced where an attack has won, so that it cannot spoil the next test."""

    def __init__(self) -> None:
        self.pool: VerificationPool | None = None
        self.processes = 0
        """How many there are of the pool while nothing is judged."""

    def open(self) -> VerificationPool:
        if self.pool is None:
            self.pool = VerificationPool(workers=1, limits=LIMITS)
            judge(self.pool, INNOCENT)
            time.sleep(0.5)  # the fork for the next program is made behind the verdict's back
            self.processes = processes_of(self.pool)
        return self.pool

    def discard(self) -> None:
        if self.pool is not None:
            self.pool.close()
        self.pool = None


@pytest.fixture(scope="module")
def keeper() -> Iterator[Keeper]:
    kept = Keeper()
    yield kept
    kept.discard()


@pytest.fixture(scope="module")
def open_pool(surroundings) -> Iterator[VerificationPool]:
    with pytest.warns(UserWarning, match="your rights to files"):
        opened = VerificationPool(workers=1, limits=LIMITS, isolation="process")
    with opened:
        yield opened


def judge(pool: VerificationPool, *items: Attack, world: World | None = None) -> list[Verdict]:
    pool._memory.clear()  # the same innocent text is to be judged each time
    return pool.verify([(item.problem(world), item.text(world)) for item in items])


def processes_of(pool: VerificationPool) -> int:
    """How many processes bear the mark of one of the pool's workers."""
    marks = [f"{handle.MARK}={worker.mark}".encode() for worker in pool._workers]
    found = 0
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            found += process.name.isdigit() and any(m in (process / "environ").read_bytes() for m in marks)
    return found


def within_seconds(claim: Callable[[], bool], seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (found := claim()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def test_table_has_sixty_attacks():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 60


@pytest.mark.parametrize("attack", ATTACKS, ids=attrgetter("name"))
def test_attack_fails_behind_the_walls(attack, surroundings, keeper):
    pool, before = keeper.open(), surroundings.state()
    try:
        found, *others, last = judge(pool, attack, *attack.then, INNOCENT, world=surroundings.world)
        assert found.status in attack.expected and not found.solved, found
        assert found.score <= attack.most, found
        for item, other in zip(attack.then, others, strict=True):
            assert other.status in item.expected, other
        assert last.status == "correct", last
        assert surroundings.state() == before
        assert within_seconds(lambda: processes_of(pool) == keeper.processes)
    except BaseException:
        keeper.discard()
        raise


@pytest.mark.parametrize("attack", DEMONSTRATED, ids=attrgetter("name"))
def test_attack_succeeds_without_walls(attack, surroundings, open_pool):
    if attack.needs_root and os.geteuid() != 0:
        pytest.skip("shown by root only")
    if attack.needs_keys and not surroundings.keys:
        pytest.skip("this machine keeps no keys")
    try:
        if callable(attack.demonstration):
            assert attack.demonstration(surroundings.world, attack)
        else:
            (found,) = judge(open_pool, attack, world=surroundings.world)
            heard = surroundings.heard()
            assert heard if attack.demonstration == "heard" else found.status == "correct", found
    finally:
        surroundings.heard()
        for made in ("trap", "made"):
            (surroundings.folders[0] / made).unlink(missing_ok=True)
