"""A batch that does not fit into memory is computed in smaller passes, to the same result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from steady import STEADY, furthest, trained

from peft_instruct.errors import PeftInstructError, is_out_of_memory
from peft_instruct.training.guarded import passes
from peft_instruct.training.pass_memory import pass_memory
from peft_instruct.training.trainer import CompletionTrainer

OOM_TEXTS = (
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB)"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 823441408 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("could not create a primitive"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
)


class Shortage:
    """Memory for at most `most_rows` rows at once, from the call `begins` on; it runs out in forward or in backward.

    Where activations are recomputed there is room for `rows_recomputed`.
    """

    def __init__(
        self,
        trainer: CompletionTrainer,
        error: BaseException,
        *,
        most_rows: int,
        begins: int,
        where: str,
        rows_recomputed: int | None = None,
    ) -> None:
        self.error, self.begins = error, begins
        self.most_rows = {False: most_rows, True: most_rows if rows_recomputed is None else rows_recomputed}
        self.num_calls = self.num_raised = self.rows = 0
        base = self.base = trainer.model.get_base_model()
        act = self.forward if where == "forward" else self.count
        base.transformer.register_forward_pre_hook(lambda _, args, given: act(given), with_kwargs=True)
        if where == "backward":
            # The last of the first block's: when it is reached, others have their part of the gradient already.
            next(p for p in trainer.model.parameters() if p.requires_grad).register_hook(self.backward)

    def count(self, given: dict[str, Any]) -> None:
        self.num_calls += 1
        self.rows = len(given["joined_rows"].token) if "joined_rows" in given else len(given["input_ids"])

    def forward(self, given: dict[str, Any]) -> None:
        self.count(given)
        self.backward(None)

    def backward(self, gradient: Any) -> None:
        if self.rows > self.most_rows[self.base.is_gradient_checkpointing] and self.num_calls >= self.begins:
            self.num_raised += 1
            raise self.error


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_run_that_did_not_fit_equals_one_that_was_started_small(
    make_trainer: Any, tmp_path: Path, where: str
) -> None:
    """Dropout included: the step that failed is begun anew, with its random state."""
    shared = ("training.max_steps=3", "training.log_every=1", "model.dropout=0.1", "method.dropout=0.1", *STEADY)
    small = make_trainer("training.batch_size=2", "training.accumulation=8", *shared, folder=tmp_path / "small")
    small.train()
    for error in OOM_TEXTS:
        said: list[str] = []
        large = make_trainer("training.batch_size=8", "training.accumulation=2", *shared, folder=tmp_path / "large")
        large.say = said.append
        shortage = Shortage(large, error, most_rows=2, begins=0, where=where)
        large.train()
        assert shortage.num_raised == 2, error  # 8 -> 4 -> 2
        assert furthest(trained(large.model), trained(small.model)) <= 1e-6
        logged = [[log["num_tokens"] for log in t.state.log_history if "loss" in log] for t in (large, small)]
        assert logged[0] == logged[1]
        assert len(said) == 2
        assert "passes of 2 rows; the batch of 2 x 8 rows and the order of rows stay as they are" in said[1]
        assert "512 words x 4 bytes)" in said[1]


def test_memory_may_run_out_in_the_middle_of_a_step_of_a_later_epoch(make_trainer: Any, tmp_path: Path) -> None:
    """What the step had accumulated before is computed again, once."""
    shared = ("training.max_steps=6", *STEADY, "training.optimizer=sgd", "training.learning_rate=0.1")
    large = make_trainer("training.batch_size=8", "training.accumulation=3", *shared, folder=tmp_path / "large")
    shortage = Shortage(large, OOM_TEXTS[2], most_rows=4, begins=11, where="backward")
    large.train()
    small = make_trainer("training.batch_size=4", "training.accumulation=6", *shared, folder=tmp_path / "small")
    small.train()
    assert shortage.num_raised == 1
    assert furthest(trained(large.model), trained(small.model)) <= 1e-6


@pytest.mark.parametrize(("rows_recomputed", "begins", "num_raised"), [(4, 3, 3), (2, 0, 4)])
def test_what_does_not_fit_row_by_row_is_recomputed_in_backward_to_the_same_result(
    make_trainer: Any, tmp_path: Path, rows_recomputed: int, begins: int, num_raised: int
) -> None:
    """4 -> 2 -> 1, then with recomputed activations from 4 on again; dropout included."""
    shared = ("training.max_steps=2", "model.dropout=0.1", "method.dropout=0.1", *STEADY)
    said: list[str] = []
    short = make_trainer("training.batch_size=4", "training.accumulation=2", *shared, folder=tmp_path / "short")
    short.say = said.append
    room = {"most_rows": 0, "rows_recomputed": rows_recomputed}
    shortage = Shortage(short, OOM_TEXTS[0], begins=begins, where="backward", **room)
    short.train()
    sizes = (f"training.batch_size={rows_recomputed}", f"training.accumulation={8 // rows_recomputed}")
    never = "training.gradient_checkpointing=false"
    plain = make_trainer(*sizes, never, *shared, folder=tmp_path / "plain")
    plain.train()
    assert shortage.num_raised == num_raised
    assert furthest(trained(short.model), trained(plain.model)) <= 1e-6
    assert "From now on activations are recomputed in backward (gradient checkpointing)" in said[2]
    assert short.is_recomputing() and not plain.is_recomputing()
    again = make_trainer(*sizes, *shared, folder=tmp_path / "again")
    again.restore_own_state(short.own_state())
    assert again.is_recomputing() and again.rows_at_once == rows_recomputed


@pytest.mark.parametrize(("rows_at_once", "restored"), [(8, 32), (2, 2)])
def test_only_a_run_that_was_split_goes_on_split(make_trainer: Any, rows_at_once: int, restored: int) -> None:
    before, after = (make_trainer(f"training.batch_size={size}") for size in (8, 32))
    before.rows_at_once = rows_at_once
    after.restore_own_state(before.own_state())
    assert after.rows_at_once == restored


def test_passes_share_the_loss_of_experts(make_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL adds it at every call."""
    trainer, seen = make_trainer("training.batch_size=8", "training.max_steps=1"), list[float]()
    compute_loss = CompletionTrainer.compute_loss

    def spied(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.router_aux_loss_coef)
        return compute_loss(self, *args, **kwargs)

    monkeypatch.setattr(CompletionTrainer, "compute_loss", spied)
    trainer.router_aux_loss_coef, trainer.rows_at_once = 0.5, 2
    trainer.train()
    assert seen == [0.125] * 4
    assert trainer.router_aux_loss_coef == 0.5


def test_a_batch_by_tokens_that_does_not_fit_is_split_by_rows(make_trainer: Any, tmp_path: Path) -> None:
    shared = ("training.max_steps=2", "training.batch_tokens=512", "training.accumulation=2", *STEADY)
    said: list[str] = []
    short, plain = (make_trainer(*shared, folder=tmp_path / name) for name in ("short", "plain"))
    short.say = said.append
    shortage = Shortage(short, OOM_TEXTS[0], most_rows=3, begins=0, where="backward")
    short.train()
    plain.train()
    assert shortage.num_raised == len(said) > 0
    assert furthest(trained(short.model), trained(plain.model)) <= 1e-6
    assert "the batch of 2 x 512 tokens and the order of rows stay as they are" in said[0]
    # Of rows half as long as many again fit.
    assert f"From now on passes of {short.tokens_at_once} tokens" in said[-1] and short.rows_at_once == len(
        short.train_rows
    )
    wide = {"input_ids": torch.zeros(8, short.tokens_at_once // 2)}
    narrow = {"input_ids": torch.zeros(8, short.tokens_at_once // 4)}
    assert (short._rows_of_pass(wide), short._rows_of_pass(narrow)) == (2, 4)
    again = make_trainer(*shared, folder=tmp_path / "again")
    again.restore_own_state(short.own_state())
    assert again.tokens_at_once == short.tokens_at_once < 512


@pytest.mark.parametrize(
    ("overrides", "told", "advice"),
    [
        (("training.batch_size=2",), "with passes of 1 rows of up to", "Lower data.max_length."),
        (
            ("training.batch_size=4", "training.micro_batch=fixed"),
            "with passes of 4 rows of up to",
            "Lower training.batch_size and raise accumulation.",
        ),
        (
            ("training.batch_size=2", "training.gradient_checkpointing=false"),
            "with passes of 1 rows of up to",
            "Lower data.max_length, or set training.gradient_checkpointing: true.",
        ),
    ],
)
def test_where_nothing_smaller_is_left_or_allowed_the_arithmetic_is_told(
    make_trainer: Any, overrides: tuple[str, ...], told: str, advice: str
) -> None:
    trainer = make_trainer("training.max_steps=1", *overrides)
    Shortage(trainer, OOM_TEXTS[0], most_rows=0, begins=0, where="forward")
    with pytest.raises(PeftInstructError) as caught:
        trainer.train()
    assert f"training: out of memory at step 1 {told}" in str(caught.value)
    assert "needed: weights " in str(caught.value)
    assert str(caught.value).endswith(advice)


def test_the_arithmetic_counts_the_logits_held_at_once_in_the_type_of_the_training(make_trainer: Any) -> None:
    """600 learned tokens of 2 layers, 64 wide; fp16 is not computed in blocks."""
    model = make_trainer().model
    batch = {name: torch.ones(2, 300, dtype=torch.long) for name in ("input_ids", "labels")}
    said = [pass_memory(model, [batch], 2, False, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)]
    assert "logits 1.05 MB (512 learned tokens x 512 words x 4 bytes) and activations about 5.22 MB" in said[0]
    assert "logits 0.52 MB (512 learned tokens x 512 words x 2 bytes) and activations about 2.61 MB" in said[1]
    assert "logits 2.46 MB (600 learned tokens x 512 words x 4 bytes, twice) and activations about 2.61 MB" in said[2]


def test_another_error_of_torch_is_not_taken_for_a_lack_of_memory(make_trainer: Any) -> None:
    trainer = make_trainer("training.max_steps=1")
    Shortage(trainer, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), most_rows=0, begins=0, where="forward")
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        trainer.train()


def test_passes_are_the_rows_in_their_order_each_as_wide_as_it_must_be() -> None:
    lengths = [3, 1, 24, 9, 10]
    mask = (torch.arange(24) < torch.tensor(lengths)[:, None]).long()
    batch = {"input_ids": torch.arange(120).view(5, 24), "attention_mask": mask}
    parts = list(passes(batch, 2))
    widths = [(0, 8), (2, 24), (4, 16)]
    assert [part["input_ids"].tolist() for part in parts] == [
        batch["input_ids"][first : first + 2, :width].tolist() for first, width in widths
    ]
    assert [len(part["input_ids"]) for part in passes(batch, 8)] == [5]


@pytest.mark.parametrize("error", OOM_TEXTS, ids=["cuda", "mps", "cpu", "oneDNN", "cuBLAS", "MemoryError"])
def test_what_libraries_say_when_memory_runs_out_is_understood(error: BaseException) -> None:
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(RuntimeError("could not create a primitive descriptor for a matmul primitive"))
