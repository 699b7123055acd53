"""A process that has imported everything and trained once, and from then on forks real runs of the command line.

`python zygote.py RECIPE` reads one JSON request per line and answers each with one line:

    {"run": [arguments], "log": FILE, "most_bytes": N}   ->  {"pid": …}    a forked child runs peft-instruct
    {"wait": pid}                                        ->  {"code": …}   its exit code, or -signal

A child is a process of its own: signals, kill -9, locks and exit codes are real; only the seconds of imports are
shared. `most_bytes` is its RLIMIT_FSIZE.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import traceback
from typing import Any


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
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if request["most_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["most_bytes"],) * 2)
    os._exit(run_here(request["run"]))


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
    answers.write(json.dumps({"ready": code}) + "\n")
    answers.flush()
    serve(answers)
