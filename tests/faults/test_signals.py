"""SIGTERM and SIGINT in every phase: saved, told how to go on, the right exit code, and the same adapter in the end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from children import SEED, Count, Zygote, assert_same_run, checkpoints_of, long_form

from peft_instruct.commands import signals
from peft_instruct.commands.signals import StopSignals
from peft_instruct.errors import Stopped

# What the run has just said when it gets the signal, in the order in which a run says it.
PHASES = {
    "data": "format alpaca",
    "model": "train: 24 rows",
    "measuring the base": "base: loss",
    "first step": "step 1/8",
    "end of an epoch": "step 3/8",
    "evaluation": "validation loss",
    "beside a save": "step 6/8",
    "last step": "step 8/8",
    "reading back": "tuned: loss",
}


def test_a_signal_in_every_phase_of_one_run(
    zygote: Zygote, fault_recipe: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    """The same command after each of them; the phases come one after the other, so the run gets further each time.

    On a busy machine a run may be over, or beyond the next phase, before the signal arrives; then another one begins.
    """
    out, num_stopped = tmp_path / "a", 0
    for number, (phase, text) in enumerate(PHASES.items()):
        sent = (signal.SIGTERM, signal.SIGINT)[number % 2]
        child = zygote.start("train", fault_recipe, "--out", out)
        child.wait_for(text)
        child.send(sent)
        ended = child.wait()
        assert "Traceback" not in ended.said
        if ended.code == 0:
            assert_same_run(out, uninterrupted)
            out = out.with_name(out.name + "a")
            continue
        assert ended.code == 128 + sent, f"{phase}: {ended}"
        assert f"{sent.name}: " in ended.said and f"Go on with: peft-instruct train {fault_recipe}" in ended.said
        num_stopped += 1
    assert num_stopped > len(PHASES) / 2
    if not out.exists():
        assert zygote.run("train", fault_recipe, "--out", out).code == 0
    assert_same_run(out, uninterrupted)


@pytest.mark.parametrize("times", [long_form(50)])
def test_signals_at_random_times(
    zygote: Zygote,
    fault_recipe: Path,
    uninterrupted: Path,
    whole_seconds: float,
    tmp_path: Path,
    times: int,
    record_property: Count,
) -> None:
    record_property("cases", times)
    chance = random.Random(SEED + 2)
    out, stopped = tmp_path / "a", 0
    while stopped < times:
        number = chance.choice((signal.SIGTERM, signal.SIGINT))
        child = zygote.start("train", fault_recipe, "--out", out)
        child.wait_until(chance.uniform(0.05, whole_seconds))
        while not (checkpoints_of(out).with_name("run.lock").exists() or child.has_ended()):
            time.sleep(0.001)  # before the run has begun a signal is the system's to handle
        child.send(number)
        ended = child.wait()
        assert ended.code in (0, 128 + number), ended
        assert "Traceback" not in ended.said
        stopped += ended.code != 0
        if ended.code == 0:
            assert_same_run(out, uninterrupted)
            out = out.with_name(out.name + "a")


TWICE = """
import time
from peft_instruct.commands.signals import StopSignals
with StopSignals("peft-instruct train r.yaml") as signals, signals.postponed():
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_second_ctrl_c_leaves_at_once() -> None:
    """In the middle of a step that would take ten minutes; a second SIGTERM, which clusters send, does not."""
    child = subprocess.Popen(
        [sys.executable, "-c", TWICE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, text=False
    )
    assert child.stdout and child.stderr
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGTERM)
    assert child.stderr.readline() == b"\n"
    assert b"finishing the step, then saving; Ctrl-C now leaves at once" in child.stderr.readline()
    child.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=0.5)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=60) == 130
    child.stdout.close()
    child.stderr.close()


def test_a_closed_terminal_and_a_closed_pipe_do_no_harm(
    zygote: Zygote, fault_recipe: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    child = zygote.start("train", fault_recipe, "--out", tmp_path / "a", unread=True)
    while not checkpoints_of(tmp_path / "a").is_dir():
        assert not child.has_ended()
    child.send(signal.SIGHUP)
    assert child.wait().code == 0
    assert_same_run(tmp_path / "a", uninterrupted)


def test_code_that_turns_the_stop_into_an_error_of_its_own_stops_all_the_same() -> None:
    with pytest.raises(Stopped) as stopped, StopSignals("peft-instruct train r.yaml"):
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            raise RecursionError from None  # numpy 2.4's, of an import that was broken off
    assert stopped.value.exit_code == 143
    with pytest.raises(OSError, match="full"), StopSignals("train") as signals, signals.postponed():
        signal.raise_signal(signal.SIGTERM)
        raise OSError("full")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_while_python_still_imports_a_signal_ends_it(fault_recipe: Path, tmp_path: Path) -> None:
    """A process without a head start, in its first seconds."""
    command = [sys.executable, "-m", "peft_instruct", "train", str(fault_recipe), "--out", str(tmp_path / "a")]
    done = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "a.run" / "run.lock").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    done.send_signal(signal.SIGTERM)
    said = done.communicate(timeout=120)[1]
    assert done.returncode == 143, said
    assert "SIGTERM: stopped. Go on with: peft-instruct train" in said and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_stop_that_other_code_drops_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the callbacks of C code drop it."""
    monkeypatch.setattr(signals, "SECONDS_UNTIL_AGAIN", 0.05)
    dropped = 0
    with pytest.raises(Stopped), signals.StopSignals("again"):
        while dropped < 3:
            try:
                if not dropped:
                    signal.raise_signal(signal.SIGTERM)
                time.sleep(5)
            except Stopped:
                dropped += 1
        time.sleep(5)
    assert dropped == 3


def test_a_stop_waits_for_what_must_not_be_broken_off_and_says_nothing_of_steps(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Stopped) as stopped, signals.StopSignals("again") as running:
        with running.postponed(tells=False):
            signal.raise_signal(signal.SIGTERM)
        pytest.fail("left when it is done")
    assert str(stopped.value) == "SIGTERM: stopped. Go on with: again"
    assert capfd.readouterr().err == ""
