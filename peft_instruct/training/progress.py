"""What a person and a program see of a run: one live line (plain lines off a terminal), and metrics.jsonl."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_instruct.secrets import hide_in

Say = Callable[[str], None]

# transformers' and TRL's names -> ours; what is not here is not a metric of ours
METRIC_NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "mean_token_accuracy": "token_accuracy",
    "num_tokens": "num_tokens",
    "eval_loss": "validation_loss",
    "eval_token_accuracy": "validation_token_accuracy",
    "eval_stop_probability": "validation_stop_probability",
}


class MetricsWriter(TrainerCallback):
    """Appends one JSON line per log to metrics.jsonl."""

    def __init__(self, path: Path, written: str = "", seconds: float = 0.0) -> None:
        """`written` and `seconds` are of the run that this one goes on from."""
        self.path = path
        self.seconds_before = seconds
        self.start = time.monotonic() - seconds
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(written, encoding="utf-8")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.start = time.monotonic() - self.seconds_before

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        metrics = {ours: logs[theirs] for theirs, ours in METRIC_NAMES.items() if logs and theirs in logs}
        if not state.is_world_process_zero or not ({"loss", "validation_loss"} & set(metrics)):
            return
        self.append({"step": state.global_step, "epoch": round(state.epoch or 0.0, 4), **metrics})

    def append(self, record: dict[str, Any]) -> None:
        """One line without secrets; floats that JSON does not know become null."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        clean["seconds"] = round(time.monotonic() - self.start, 3)
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(hide_in(clean), ensure_ascii=False) + "\n")


def read_metrics(path: Path) -> list[Any]:
    """The lines of a metrics.jsonl; a text in one may hold U+2028 and the like, which end no line here."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


class ProgressLine(TrainerCallback):
    """Step, loss, learning rate, speed and time left, through `say`; `live` rewrites one line."""

    def __init__(self, say: Say, live: Say | None = None) -> None:
        self.say = say
        self.live = live
        self.start = 0.0
        self.first_step = 0
        self.first_token: float = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.start = time.monotonic()
        # Speed is of this process: what a run before it has done took its own time.
        self.first_step = state.global_step
        logged = [log["num_tokens"] for log in state.log_history if "num_tokens" in log]
        self.first_token = logged[-1] if logged else 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or not state.is_world_process_zero:
            return
        if "eval_loss" in logs:
            loss = logs["eval_loss"]
            perplexity = math.exp(min(loss, 700))
            stops = f", P(stop) {logs['eval_stop_probability']:.2f}" if "eval_stop_probability" in logs else ""
            self.say(f"step {state.global_step}: validation loss {loss:.4f}, perplexity {perplexity:.2f}{stops}")
        elif "loss" in logs:
            (self.live or self.say)(self._line(state, logs))

    def _line(self, state: TrainerState, logs: dict[str, Any]) -> str:
        seconds = time.monotonic() - self.start
        left = seconds / max(state.global_step - self.first_step, 1) * (state.max_steps - state.global_step)
        return (
            f"step {state.global_step}/{state.max_steps}  loss {logs['loss']:.4f}  lr {logs['learning_rate']:.1e}  "
            f"{(logs.get('num_tokens', 0) - self.first_token) / max(seconds, 1e-9):,.0f} tok/s  {_clock(left)} left"
        )


class Samples(TrainerCallback):
    """Completions of fixed prompts while training, said and written to metrics.jsonl."""

    def __init__(
        self,
        prompts: dict[str, str],
        answer: Callable[[list[str]], list[tuple[str, bool]]],
        every: int | str,
        writer: MetricsWriter,
        say: Say,
        last_step: int = -1,
    ) -> None:
        """`prompts` maps what a person reads to what the model gets; `answer` also says whether each one stopped.

        Args:
            last_step: of the last ones that a run which goes on has written already.
        """
        self.prompts, self.answer, self.every, self.writer, self.say = prompts, answer, every, writer, say
        self.last_step = last_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if isinstance(self.every, int) and state.global_step % self.every == 0:
            self.take(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.every == "epoch":
            self.take(state)

    def take(self, state: TrainerState) -> None:
        if not self.prompts or not state.is_world_process_zero or state.global_step == self.last_step:
            return
        self.last_step = state.global_step
        answers = self.answer(list(self.prompts.values()))
        samples = {asked: completion for asked, (completion, _) in zip(self.prompts, answers, strict=True)}
        num_stopped = sum(stopped for _, stopped in answers)
        self.writer.append({"step": state.global_step, "samples": samples, "stop_share": num_stopped / len(answers)})
        for instruction, completion in samples.items():
            self.say(f"  {shorten(instruction)} -> {shorten(completion)}")
        self.say(f"  {num_stopped} of {len(answers)} stopped by themselves")


def last_sampled(path: Path) -> int:
    """The step of the last samples in a metrics.jsonl; -1 where it has none."""
    return max((line["step"] for line in read_metrics(path) if "samples" in line), default=-1)


def shorten(text: str, width: int = 100) -> str:
    """A text on one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
