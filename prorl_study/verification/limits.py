"""What one judged item may use. Plain data; `worker` and `pool` enforce it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from prorl_study.errors import StudyError


@dataclass(frozen=True)
class Limits:
    """Limits of one item; all of them positive, else StudyError."""

    cpu_seconds: float = 5.0
    """CPU seconds of the item and every process that it starts, together (2505.24864 gives code 5 s).
    This decides, so that a busy machine does not turn right answers into timeouts."""
    wall_seconds: float = 30.0
    """Seconds on the clock; a backstop for items that sleep, far enough behind the CPU limit that a machine
    several times overbooked does not reach it first."""
    memory_mb: int = 1024
    """MiB of address space that each process may map beyond what its warm worker had mapped."""
    output_bytes: int = 1_000_000
    """Bytes that a file written by the item may reach."""
    open_files: int = 64
    """File descriptors per process."""
    processes: int = 16
    """Processes and threads alive at once, the judging process included."""
    answer_chars: int = 20_000
    """Characters of a completion; a longer one is `refused` and judged by nobody."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise StudyError(f"verification limits: {name}={value!r} must be above 0; raise it.")
