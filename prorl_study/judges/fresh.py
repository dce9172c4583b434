"""Which fork a verifier runs in: the warm one that serves many answers, or one made for this answer alone.

A parser or scorer that evaluates the answer as code (sympy's `parse_expr`, a bare `eval`) could change the
process that judges the next answer. A verifier calls `require_fresh_fork()` before it enters one; in the
warm fork that raises, and the worker judges the item again in a fork of its own, which is then thrown away.
"""

from __future__ import annotations


class NeedsFreshFork(Exception):
    """The rest of this judgement must not run in a process that judges other answers too."""


_throwaway = False


def enter_throwaway_fork() -> None:
    """Called by the worker in a fork that ends after this one item."""
    global _throwaway
    _throwaway = True


def require_fresh_fork() -> None:
    """Raises NeedsFreshFork unless this process ends after the current item."""
    if not _throwaway:
        raise NeedsFreshFork
