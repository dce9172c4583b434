"""Verdicts on model output, given behind walls and under limits and never by the study's own process.

    with VerificationPool() as pool:
        verdicts = pool.verify([(problem, completion), ...])

`pool` is what the study calls, `handle` its end of one worker, `walls` what stands around each process,
`worker` the process that judges, `runner` the one that forks for model-written programs and `candidate` what
those forks do; `channel` and `plain` are the messages between them, `limits` what one item may use,
`processes` how that is counted and ended.

Covered: see `walls` (files, network, privileges), `runner` and `worker` (CPU time, wall time, memory,
processes, open files, output; nothing of one program reaches the next; verdicts cannot be forged, since
expected outputs and the judge are in other processes behind other walls). Not covered: holes in the kernel;
side channels such as timing. Without walls (`isolation: process`) a program can also read what its user may,
and kill its own runner, which costs a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prorl_study.verification.limits import Limits
    from prorl_study.verification.pool import Stats, VerificationPool

__all__ = ["Limits", "Stats", "VerificationPool"]


def __getattr__(name: str) -> Any:
    # Late, since the runner imports modules of this package and must stay small: its forks copy it.
    if name == "Limits":
        from prorl_study.verification import limits as module
    elif name in __all__:
        from prorl_study.verification import pool as module
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)
