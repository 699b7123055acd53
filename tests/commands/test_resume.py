"""Going on with a run: exactly where nothing changed, refused where something did, and with effect where allowed."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from listeners import silent, stop_when

from peft_instruct.commands.train import train
from peft_instruct.commands.train_run import Run
from peft_instruct.errors import AdapterError, PeftInstructError, RecipeError, Stopped
from peft_instruct.model import device
from peft_instruct.training.checkpoints import checkpoint_folder, verify
from peft_instruct.training.resumable import ResumableTrainer

SMALL = ("training.max_steps=6", "training.batch_size=4", "data.limit=12", "training.log_every=1", "evaluation.rows=0",
         "samples.count=0", "training.warmup=0", "data.validation_fraction=0")  # fmt: skip

LONG = 1000.0


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def weights_of(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def stopped(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps that SIGTERM stopped at its third, after a long time, in a folder to be copied."""
    out = tmp_path_factory.mktemp("stopped") / "a"
    seconds = ResumableTrainer.seconds
    with (
        pytest.MonkeyPatch.context() as patched,
        pytest.raises(Stopped, match=r"SIGTERM: saved checkpoint-3\. Go on with: peft-instruct train") as caught,
    ):
        patched.setattr(ResumableTrainer, "seconds", lambda trainer: LONG + seconds(trainer))
        train(str(tiny_recipe), [*SMALL, "training.save_every=2"], out=out, say=stop_when("step 3/"))
    assert caught.value.exit_code == 143
    return out


@pytest.fixture
def out(stopped: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped.with_name("a.run"), tmp_path / "a.run")
    return tmp_path / "a"


@pytest.fixture(scope="module")
def whole(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, which nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "a"
    return train(str(tiny_recipe), SMALL, out=out, say=silent).folder


def test_a_stopped_run_goes_on_by_itself_and_ends_as_if_nothing_had_happened(
    tiny_recipe: Path, out: Path, whole: Path
) -> None:
    """The cadence of saving is not part of what a run is."""
    said: list[str] = []
    result = train(str(tiny_recipe), SMALL, out=out, say=said.append)
    assert any("checkpoint-3, step 3 of 6" in line for line in said)
    assert weights_of(out) == weights_of(whole)
    assert metrics_of(out) == metrics_of(whole)
    assert result.num_steps == 6
    assert result.total_seconds > result.train_seconds > LONG
    assert result.mean_loss == json.loads((whole / "manifest.json").read_text())["metrics"]["mean_loss"]
    assert [path.name for path in out.parent.iterdir()] == ["a"]


def test_the_precision_that_a_run_began_with_stays_where_the_machine_would_choose_another_by_now(
    tiny_recipe: Path, out: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` is measured, and a machine with other work to do may show another winner."""
    monkeypatch.setattr(device, "is_faster_in_bf16", lambda _: True)
    said: list[str] = []
    train(str(tiny_recipe), [*SMALL, "training.precision=auto"], out=out, say=said.append, allow_changes=True)
    assert any("as the run began" in line for line in said)
    assert not any("precision was" in line for line in said)
    assert weights_of(out) == weights_of(whole)


def test_an_adapter_is_read_onto_no_device_but_the_runs(
    tiny_recipe: Path, out: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT asks for the best device of the machine, which another process may fill."""
    monkeypatch.setattr("peft.peft_model.infer_device", lambda: pytest.fail("a device was looked for"))
    train(str(tiny_recipe), SMALL, out=out, say=silent)
    assert weights_of(out) == weights_of(whole)


def test_a_named_older_checkpoint_gives_the_same_end(tiny_recipe: Path, out: Path, whole: Path) -> None:
    said: list[str] = []
    older = out.with_name("a.run") / "checkpoints" / "checkpoint-2"
    train(str(tiny_recipe), SMALL, out=out, resume=str(older), say=said.append)
    assert weights_of(out) == weights_of(whole)
    assert any("checkpoint-3: is not before the step" in line for line in said)


def test_a_run_of_another_folder_is_copied_and_stays_as_it_was(
    tiny_recipe: Path, stopped: Path, whole: Path, tmp_path: Path
) -> None:
    there = stopped.with_name("a.run")
    before = sorted(path.name for path in (there / "checkpoints").iterdir())
    train(str(tiny_recipe), SMALL, out=tmp_path / "b", resume=str(there), say=silent)
    assert weights_of(tmp_path / "b") == weights_of(whole)
    assert sorted(path.name for path in (there / "checkpoints").iterdir()) == before


def test_none_starts_anew_and_says_what_it_drops(tiny_recipe: Path, out: Path) -> None:
    said: list[str] = []
    train(str(tiny_recipe), [*SMALL, "training.learning_rate=0.02"], out=out, resume="none", say=said.append)
    assert "starting anew: the unfinished run's checkpoint-2, checkpoint-3 are dropped" in said
    assert [line["step"] for line in metrics_of(out)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.learning_rate=0.02", r"training\.learning_rate: 0\.01 -> 0\.02"),
        ("data.limit=16", r"data\.limit: 12 -> 16\n.*data: other rows"),
        ("training.accumulation=2", r"training\.accumulation: 1 -> 2"),
    ],
)
def test_another_run_is_refused_with_the_keys_that_differ(
    tiny_recipe: Path, out: Path, override: str, told: str
) -> None:
    with pytest.raises(AdapterError, match=rf"(?s){told}.*--resume-allow-changes"):
        train(str(tiny_recipe), [*SMALL, override], out=out, say=silent)
    assert (out.with_name("a.run") / "checkpoints" / "checkpoint-3" / "manifest.json").is_file()


@pytest.mark.parametrize("override", ["method.rank=8", "training.optimizer=sgd", "model.dropout=0.2"])
def test_what_shapes_the_tensors_cannot_change_at_all(tiny_recipe: Path, out: Path, override: str) -> None:
    key = override.split("=")[0].replace(".", r"\.")
    with pytest.raises(AdapterError, match=rf"(?s){key}: .*Start anew with --resume none"):
        train(str(tiny_recipe), [*SMALL, override], out=out, allow_changes=True, say=silent)


def test_an_allowed_change_takes_effect_from_the_next_step_on(tiny_recipe: Path, out: Path, whole: Path) -> None:
    """transformers restores the old rate and schedule; here step n has what the new recipe says of step n.

    Cosine without warm-up: the n-th step is taken with peak · (1 + cos(π · (n - 1) / max_steps)) / 2.
    """
    changed = [*SMALL, "training.learning_rate=0.02", "training.max_steps=8"]
    train(str(tiny_recipe), changed, out=out, allow_changes=True, say=silent)
    rates = {line["step"]: line["learning_rate"] for line in metrics_of(out)}
    # The rate that is logged is the one of the next step's optimizer where the Trainer has stepped the schedule.
    before = {line["step"]: line["learning_rate"] for line in metrics_of(whole)}
    assert [rates[step] for step in (1, 2, 3)] == [before[step] for step in (1, 2, 3)]
    for step in range(4, 9):
        assert rates[step] == pytest.approx(0.02 * (1 + math.cos(math.pi * (step - 1) / 8)) / 2, rel=1e-9)


def test_a_run_whose_training_was_over_trains_no_step_more(
    tiny_recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last step is mid-epoch, where transformers would take another one."""
    out = tmp_path / "a"
    changes = [*SMALL, "data.limit=20"]
    with monkeypatch.context() as broken:
        broken.setattr(Run, "_write", lambda *_: (_ for _ in ()).throw(PeftInstructError("the power went")))
        with pytest.raises(PeftInstructError, match="the power went"):
            train(str(tiny_recipe), changes, out=out, say=silent)
    said: list[str] = []
    result = train(str(tiny_recipe), changes, out=out, say=said.append)
    assert any("step 6 (training was over)" in line for line in said)
    assert not any(line.startswith("step ") for line in said)
    expected = train(str(tiny_recipe), changes, out=tmp_path / "b", say=silent)
    assert weights_of(out) == weights_of(tmp_path / "b")
    assert (result.num_steps, result.mean_loss) == (6, expected.mean_loss)


def test_best_weights_and_patience_survive_a_stop(tiny_recipe: Path, tmp_path: Path) -> None:
    """No loss falls by 9 nats: three evaluations after the first one, the run stops by itself."""
    changes = [*SMALL[:-1], "training.max_steps=20", "training.learning_rate=0.3", "training.evaluate_every=2",
               "training.early_stopping={patience: 3, min_delta: 9.0}"]  # fmt: skip
    expected = train(str(tiny_recipe), changes, out=tmp_path / "a", say=silent)
    out = tmp_path / "b"
    for at in ("step 3/", "step 6/"):
        with pytest.raises(Stopped):
            train(str(tiny_recipe), changes, out=out, say=stop_when(at))
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(out.with_name("b.run"), moved / "b.run")  # the path of the best checkpoint in it is then another
    result = train(str(tiny_recipe), changes, out=moved / "b", say=silent)
    assert result.num_steps == expected.num_steps == 8
    assert weights_of(moved / "b") == weights_of(tmp_path / "a")
    assert metrics_of(moved / "b") == metrics_of(tmp_path / "a")


def test_early_stopping_may_begin_where_a_run_goes_on(tiny_recipe: Path, tmp_path: Path) -> None:
    """transformers looks up its counter in the state of a run that had none."""
    changes = [*SMALL[:-1], "training.max_steps=20", "training.learning_rate=0.3", "training.evaluate_every=2"]
    with pytest.raises(Stopped):
        train(str(tiny_recipe), changes, out=tmp_path / "a", say=stop_when("step 2/"))
    changes.append("training.early_stopping={patience: 1, min_delta: 9.0}")
    result = train(str(tiny_recipe), changes, out=tmp_path / "a", allow_changes=True, say=silent)
    assert result.num_steps < 20


def test_losses_of_other_rows_are_not_compared(tiny_recipe: Path, tmp_path: Path) -> None:
    """The best of the rows before may be out of reach for the new ones, and all that follows would be thrown away."""
    for name, text in (("easy", "ok"), ("hard", "zq xv 7 #")):
        rows = ({"instruction": f"Say {number}.", "output": text * (1 + (name == "hard"))} for number in range(4))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = [
        *SMALL[:-1],
        f"data.validation={tmp_path}/easy.jsonl",
        "training.evaluate_every=1",
        "training.keep_best=true",
    ]
    with pytest.raises(Stopped):
        train(str(tiny_recipe), changes, out=tmp_path / "a", say=stop_when("step 3/"))
    changes[-3] = f"data.validation={tmp_path}/hard.jsonl"
    said: list[str] = []
    train(str(tiny_recipe), changes, out=tmp_path / "a", allow_changes=True, say=said.append)
    losses = {line["step"]: line["validation_loss"] for line in metrics_of(tmp_path / "a") if "validation_loss" in line}
    assert min(losses[step] for step in (1, 2, 3)) < min(losses[step] for step in (4, 5, 6)), "or nothing is shown"
    assert any("the best weights and early stopping are judged from here on alone" in line for line in said)
    assert not any("weights are those of step" in line and line.split("step ")[1][0] in "123" for line in said)


def test_a_signal_before_the_first_step_leaves_at_once_and_leaves_nothing(tiny_recipe: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped, match=r"SIGINT: stopped\. Go on with") as caught:
        train(str(tiny_recipe), SMALL, out=tmp_path / "a", say=stop_when("train: ", signal.SIGINT))
    assert caught.value.exit_code == 130
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is before


def test_never_still_saves_when_a_signal_asks_for_it(tiny_recipe: Path, tmp_path: Path, whole: Path) -> None:
    changes = [*SMALL, "training.save_every=never"]
    with pytest.raises(Stopped, match="saved checkpoint-3"):
        train(str(tiny_recipe), changes, out=tmp_path / "a", say=stop_when("step 2/"))
    train(str(tiny_recipe), changes, out=tmp_path / "a", say=silent)
    assert weights_of(tmp_path / "a") == weights_of(whole)


def test_full_training_with_two_optimizers_goes_on_exactly(tiny_recipe: Path, tmp_path: Path) -> None:
    """Muon and AdamW, with dropout in the base."""
    changes = [
        *SMALL,
        "method.kind=full",
        "training.learning_rate=0.01",
        "model.dropout=0.1",
        "training.optimizer=muon",
    ]
    train(str(tiny_recipe), changes, out=tmp_path / "a", say=silent)
    with pytest.raises(Stopped):
        train(str(tiny_recipe), changes, out=tmp_path / "b", say=stop_when("step 3/"))
    train(str(tiny_recipe), changes, out=tmp_path / "b", say=silent)
    one, other = (tmp_path / name / "model.safetensors" for name in ("a", "b"))
    assert one.read_bytes() == other.read_bytes()
    assert metrics_of(tmp_path / "a") == metrics_of(tmp_path / "b")


def test_a_resume_from_nothing_is_told(tiny_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--resume: nowhere is not there"):
        train(str(tiny_recipe), SMALL, out=tmp_path / "a", resume="nowhere", say=silent)


def test_no_checkpoint_holds_a_pickle(stopped: Path) -> None:
    names = {path.name for path in stopped.with_name("a.run").rglob("checkpoint-3/*")}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json", "metrics.jsonl",
                     "state.safetensors", "trainer_state.json"}  # fmt: skip


def test_never_still_saves_when_a_signal_comes_with_the_last_validation_loss(tiny_recipe: Path, tmp_path: Path) -> None:
    """Nothing but an evaluation stands between the last step and the end of training."""
    asked = [*SMALL[:-1], "training.save_every=never", "training.evaluate_every=epoch", "training.max_steps=3"]
    with pytest.raises(Stopped, match="saved checkpoint-3"):
        train(str(tiny_recipe), asked, out=tmp_path / "a", say=stop_when("step 3: validation loss"))
    result = train(str(tiny_recipe), asked, out=tmp_path / "a", say=silent)
    assert result.num_steps == 3


def test_a_signal_with_a_validation_loss_that_ends_an_epoch_loses_no_sample(tiny_recipe: Path, tmp_path: Path) -> None:
    asked = [*SMALL[:-1], "training.evaluate_every=1", "samples.count=1", "samples.every=epoch",
             "samples.max_new_tokens=2", "training.save_every=never"]  # fmt: skip
    expected = train(str(tiny_recipe), asked, out=tmp_path / "whole", say=silent).folder
    ends = [line["step"] for line in metrics_of(expected) if "samples" in line]
    with pytest.raises(Stopped, match=f"saved checkpoint-{ends[0]}"):
        train(str(tiny_recipe), asked, out=tmp_path / "a", say=stop_when(f"step {ends[0]}: validation loss"))
    train(str(tiny_recipe), asked, out=tmp_path / "a", say=silent)
    assert len(ends) > 1 and metrics_of(tmp_path / "a") == metrics_of(expected)


def test_a_run_that_was_over_goes_on_where_it_is_given_more_steps(
    tiny_recipe: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(Run, "_write", lambda *_: (_ for _ in ()).throw(PeftInstructError("the power went")))
        with pytest.raises(PeftInstructError, match="the power went"):
            train(str(tiny_recipe), SMALL, out=out, say=silent)
    assert verify(checkpoint_folder(out.with_name("a.run") / "checkpoints", 6)).manifest.is_last
    result = train(str(tiny_recipe), [*SMALL, "training.max_steps=8"], out=out, allow_changes=True, say=silent)
    assert result.num_steps == 8
    assert [line["step"] for line in metrics_of(out)] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("max_steps", [1, 2])
def test_a_run_given_no_more_steps_than_it_has_done_trains_none(tiny_recipe: Path, out: Path, max_steps: int) -> None:
    """In the middle of an epoch, where transformers would take another step."""
    middle = out.with_name("a.run") / "checkpoints" / "checkpoint-2"
    reached = weights_of(middle)
    changes = [*SMALL, f"training.max_steps={max_steps}"]
    result = train(str(tiny_recipe), changes, out=out, resume=str(middle), allow_changes=True, say=silent)
    assert result.num_steps == 2
    assert weights_of(out) == reached


@pytest.mark.parametrize(("at", "options"), [("train: ", " --resume none --resume-allow-changes"), ("step 2/", "")])
def test_how_to_go_on_names_the_resume_options_until_the_run_has_saved(
    tiny_recipe: Path, tmp_path: Path, at: str, options: str
) -> None:
    """After a save `--resume none` would drop it."""
    with pytest.raises(Stopped) as caught:
        train(str(tiny_recipe), SMALL, out=tmp_path / "a", resume="none", allow_changes=True, say=stop_when(at))
    assert str(caught.value).endswith(f"--out {tmp_path / 'a'}{options}")
