"""The files of a checkpoint under other versions of the libraries, and machines that fail while they are loaded."""

from __future__ import annotations

import errno
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from tiny import write_checkpoint_files
from transformers import TrainerState

from peft_instruct.errors import AdapterError, PeftInstructError
from peft_instruct.training import contents
from peft_instruct.training.contents import TRAINER_STATE, check_contents, loading


@dataclass
class LaterState(TrainerState):
    """transformers' as a later version may have it."""

    added: int = 0


def test_a_field_that_the_installed_version_has_is_let_through_and_any_other_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint-3"
    write_checkpoint_files(folder, 3)
    check_contents(folder, 3)
    (folder / TRAINER_STATE).write_text(json.dumps(asdict(LaterState(global_step=3, train_batch_size=1, added=1))))
    with pytest.raises(AdapterError, match="added: unknown key"):
        check_contents(folder, 3)
    monkeypatch.setattr(contents, "TrainerState", LaterState)
    check_contents(folder, 3)
    (folder / TRAINER_STATE).write_text(
        json.dumps({**asdict(LaterState(global_step=3, train_batch_size=1)), "other": 1})
    )
    with pytest.raises(AdapterError, match="other: unknown key"):
        check_contents(folder, 3)


def test_a_field_that_an_earlier_version_did_not_write_takes_the_librarys_default(tmp_path: Path) -> None:
    """The defaults are told here only to say that the field may be missing: those that act are transformers'."""
    folder = tmp_path / "checkpoint-3"
    write_checkpoint_files(folder, 3)
    (folder / TRAINER_STATE).write_text('{"global_step": 3, "train_batch_size": 1}')
    check_contents(folder, 3)
    ours = contents.StoredTrainerState(global_step=3, train_batch_size=1).model_dump()
    assert ours == asdict(TrainerState.load_from_json(str(folder / TRAINER_STATE)))
    (folder / TRAINER_STATE).write_text("{}")
    with pytest.raises(AdapterError, match=r"(?s)global_step.*train_batch_size"):
        check_contents(folder, 3)


@pytest.mark.parametrize(
    "failed",
    [
        torch.AcceleratorError("CUDA error: unspecified launch failure\nCUDA kernel errors might be ..."),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ESTALE, "Stale file handle"),
    ],
)
def test_a_machine_that_fails_is_no_reason_to_give_a_checkpoint_up(failed: Exception) -> None:
    with pytest.raises(PeftInstructError) as caught, loading(Path("checkpoint-3")):
        raise failed
    said = str(caught.value)
    assert str(failed).splitlines()[0] in said and "stays as it is" in said
    assert "--resume" not in said and "another" not in said and "\n" not in said


def test_tensors_of_another_shape_are_another_run() -> None:
    with pytest.raises(AdapterError, match=r"does not fit this run .* --resume none"), loading(Path("checkpoint-3")):
        torch.zeros(2).copy_(torch.zeros(3))
