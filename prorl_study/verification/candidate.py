"""What happens in the fork that runs one model-written program: load it, call it, say what came back.

The other end of the channel is the judge (`prorl_study.judges.programs`), which believes nothing of it but
plain values (`plain`). No expected output is ever sent here. The first message is the task, `{"code",
"prelude", "program", "entry_point"}`, answered by `{"loaded": true}` or `{"raised": ..., "text": ...}`; then
come lists, `{"each": [...]}`. Functions are loaded once, in one process; each item `[name, args, kwargs]` is
a call, answered by `{"value": ...}` or `{"raised": ..., "text": ...}`. A program is compiled once; each item
is a standard input, run in a fork of this fork and answered by `{"out": ..., "error": ...}`.

Left out: every limit but the size of what is printed. The `runner` watches from outside.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from prorl_study.verification.channel import Inbox, pack, write_all
from prorl_study.verification.plain import NotPlain, decode, encode
from prorl_study.verification.processes import PR_SET_DUMPABLE, limit_files, prctl

TEXT_CHARS = 200


def raised(error: BaseException) -> dict[str, str]:
    """What was raised, by the nearest class that the judge knows as well."""
    kinds = [kind.__name__ for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind]
    try:
        text = str(error)[:TEXT_CHARS]
    except BaseException:
        text = ""
    return {"raised": kinds[0], "text": text}


def attempt(action: Callable[[], Any]) -> tuple[Any, dict[str, str] | None]:
    """`(value, None)`, or `(None, what was raised)`, be it SystemExit or a class of the program's own."""
    try:
        return action(), None
    except BaseException as error:
        return None, raised(error)


def serve(channel: int, limits: SimpleNamespace) -> None:
    """Answer the judge until it hangs up."""
    inbox = Inbox(channel)
    task = inbox.next()
    if task is None:
        return
    if not task["program"]:
        limit_files(limits.output_bytes)
    if "random" in task["code"]:
        import random

        random.seed(0)  # a program that draws numbers gets the same verdict every time
    loader = load_program if task["program"] else load_functions
    answer, failure = attempt(lambda: loader(task, limits))
    loaded, me = pack(failure or {"loaded": True}), os.getpid()
    # Calls that are here already are answered together with that, which wakes the judge once, not twice.
    message = inbox.next(wait=False)
    if failure or message is None or not message["each"]:
        write_all(channel, loaded)
        loaded, message = b"", message or inbox.next()
    while message:  # also where nothing could be loaded: the judge hangs up when it has read that
        for request in message["each"] if answer else ():
            reply = answer(request)
            if os.getpid() != me:  # a copy that the program made of its process
                return
            write_all(channel, loaded + reply)
            loaded = b""
        message = inbox.next()


def rehearse(limits: SimpleNamespace) -> None:
    """Done once by the runner, before it forks: what every task needs (the parser's tables, a decoder) is
    then there, and no fork has to make its own."""
    task = json.loads(
        '{"prelude": "", "code": "def f(x, y=[1, (2.5, None)]):\\n    return x", "entry_point": "f"}'
    )
    answer = load_functions(task, limits)
    answer(["f", ["x"], {"d": []}])


def load_functions(task: dict[str, Any], limits: SimpleNamespace) -> Callable[[list[Any]], bytes]:
    """Run the definitions; what is returned calls one of them."""
    namespace: dict[str, Any] = {"__name__": "candidate"}
    kept: list[Any] = []

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    def fetch(number: int, _: bool) -> Any:
        return kept[number]

    def find(name: str) -> Any:
        return namespace[name] if name in namespace else getattr(namespace["Solution"](), name)

    def call(name: str, args: Any, kwargs: Any) -> Any:
        arguments, named = decode(args, fetch), decode(kwargs, fetch)
        return encode(find(name)(*arguments, **named), keep)

    def answer(request: list[Any]) -> bytes:
        value, failure = attempt(lambda: call(*request))
        if failure is None:
            frame, failure = attempt(lambda: pack({"value": value}))
            if failure is None and len(frame) > limits.output_bytes:
                failure = raised(NotPlain(f"a value of over {limits.output_bytes} bytes"))
        return frame if failure is None else pack(failure)

    sys.stdin = io.StringIO()
    for part in (task["prelude"], task["code"]):
        exec(compile(part, "<candidate>", "exec"), namespace)
    entry_point = task["entry_point"]
    if entry_point and "Solution" not in namespace and not callable(namespace.get(entry_point)):
        raise NameError(f"no function {entry_point}")
    return answer


def load_program(task: dict[str, Any], limits: SimpleNamespace) -> Callable[[str], bytes]:
    """Compile; what is returned runs the program on one standard input."""
    parts = [compile(part, "<candidate>", "exec") for part in (task["prelude"], task["code"])]

    def run(stdin: str) -> bytes:
        files = [os.memfd_create("standard stream") for _ in range(3)]
        write_all(files[0], stdin.encode("utf-8", "surrogatepass"))
        os.lseek(files[0], 0, os.SEEK_SET)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setsid()
                prctl(PR_SET_DUMPABLE, 1)  # or /dev/stdin could not be opened
                for descriptor, file in enumerate(files):
                    os.dup2(file, descriptor)
                    os.close(file)
                limit_files(limits.output_bytes)
                status = run_main(parts)
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        out, error = (os.pread(file, limits.output_bytes, 0).decode(errors="replace") for file in files[1:])
        for file in files:
            os.close(file)
        last = (error.strip().splitlines() or [""])[-1][:TEXT_CHARS]
        return pack({"out": out, "error": "" if status == 0 else last or f"exit status {status}"})

    return run


def run_main(parts: list[Any]) -> int:
    """Run the program as `python program.py` would; returns its exit status."""
    sys.stdin = open(0, encoding="utf-8", errors="surrogatepass", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)
    sys.argv = ["program.py"]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    status = 0
    try:
        for part in parts:
            exec(part, namespace)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    if threading := sys.modules.get("threading"):  # not imported here: it slows down every fork
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return status & 0xFF
