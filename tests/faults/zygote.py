"""A process that has imported everything and trained once, and from then on forks real runs of the command line.

`python zygote.py RECIPE` reads one JSON request per line and answers each with one line:

    {"run": [arguments], "log": FILE, …}   ->  {"pid": …}    a forked child runs peft-instruct
    {"wait": pid}                          ->  {"code": …}   its exit code, or -signal

A child is a process of its own: signals, kill -9, locks and exit codes are real; only the seconds of imports are
shared. What else a request may ask for:

    "most_bytes": N    its RLIMIT_FSIZE
    "room": N          its RLIMIT_AS from the end of the first step to the end of training, beyond what it maps then
    "unread": true     stdout and stderr are a pipe whose reader has gone
    "stop": [P, S]     it gets signal S at a point P of stopping_points.py
    "keep": true       its checkpoints stay in the finished folder
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from stopping_points import arm, keep_checkpoints


def run_here(arguments: list[str]) -> int:
    """peft-instruct with these arguments in this process, and its exit code."""
    from peft_instruct.cli import main

    sys.argv = ["peft-instruct", *arguments]
    try:
        main()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def child(request: dict[str, Any]) -> None:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if request.get("unread"):
        reading, log = os.pipe()
        os.close(reading)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if request.get("most_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["most_bytes"],) * 2)
    if request.get("room"):
        limit_memory(request["room"])
    if request.get("stop"):
        arm(*request["stop"])
    if request.get("keep"):
        keep_checkpoints()
    os._exit(run_here(request["run"]))


BALLAST, BALLAST_PIECE = 128 << 20, 1 << 16


def limit_memory(room: int) -> None:
    """Of training alone, after its first step: what comes before and after has another size."""
    from peft_instruct.commands import train_run

    ballast: list[bytearray] = []

    def after_step(self: Any, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            # Of what the first step freed, which would else be enough for the next one, most pieces are taken.
            ballast.extend(bytearray(BALLAST_PIECE) for _ in range(BALLAST // BALLAST_PIECE))
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (mapped + room, resource.RLIM_INFINITY))

    def after_training(*args: Any, **kwargs: Any) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        ballast.clear()

    train_run.ProgressLine.on_step_end = after_step  # type: ignore[method-assign]
    train_run.ProgressLine.on_train_end = after_training  # type: ignore[method-assign]


def serve(answers: Any) -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if pid == 0:
                answers.close()
                child(request)
            answer = {"pid": pid}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as folder:
        code = run_here(["train", sys.argv[1], "--out", f"{folder}/warm", "--set", "training.max_steps=2"])
    # What is imported is no garbage: a collection in a child need not walk through it.
    gc.collect()
    gc.freeze()
    answers.write(json.dumps({"ready": code}) + "\n")
    answers.flush()
    serve(answers)
