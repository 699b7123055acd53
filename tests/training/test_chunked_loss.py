"""The loss from hidden states by blocks and chunks, against cross-entropy on all logits at once."""

from __future__ import annotations

import pytest
import torch

from peft_instruct.model.packed import Matrix, multiplies_packed
from peft_instruct.training import chunked_loss
from peft_instruct.training.chunked_loss import can_chunk, chunked_losses

NUM_ROWS, WIDTH, VOCABULARY = 161, 16, 50


def case(learns: bool) -> tuple[torch.Tensor, torch.nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False).requires_grad_(learns)
    return torch.randn(NUM_ROWS, WIDTH, requires_grad=True), head, torch.randint(0, VOCABULARY, (NUM_ROWS,))


@pytest.mark.parametrize(
    ("learns", "packs"), [(True, False), (False, False), (False, True)], ids=["head learns", "is frozen", "is packed"]
)
@pytest.mark.parametrize("rows_of_block", [512, 64])
def test_loss_and_gradients_are_those_of_cross_entropy(
    learns: bool, packs: bool, rows_of_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """161 rows are a block of five 32-row chunks and one of a row, or three blocks of which the last is not whole."""
    monkeypatch.setattr(chunked_loss, "ROWS_OF_BLOCK", rows_of_block)
    hidden, head, targets = case(learns)
    packed = Matrix(head.weight.t(), packs=multiplies_packed(head.weight)) if packs else None
    losses, is_top1 = chunked_losses(hidden, head, targets, packed)
    (losses.sum() / 7).backward()
    found = [hidden.grad, head.weight.grad]
    hidden.grad = head.weight.grad = None
    logits = head(hidden)
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    (expected.sum() / 7).backward()
    torch.testing.assert_close(losses, expected)
    assert torch.equal(is_top1, (logits.argmax(-1) == targets).float())
    torch.testing.assert_close(found[0], hidden.grad)
    torch.testing.assert_close(found[1], head.weight.grad) if learns else None
    assert (found[1] is None) == (not learns)


def test_in_bf16_softmax_and_the_sum_over_blocks_are_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16 a sum of equal blocks stops growing at some 256 of them: one more is less than half its last place."""
    monkeypatch.setattr(chunked_loss, "ROWS_OF_BLOCK", 32)
    hidden = torch.randn(1, WIDTH).expand(32 * 600, WIDTH).bfloat16()
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False).bfloat16()
    targets = torch.zeros(len(hidden), dtype=torch.long)
    losses, _ = chunked_losses(hidden, head, targets)
    (losses.sum() / len(hidden)).backward()
    logits = (hidden[:1] @ head.weight.t()).float()
    torch.testing.assert_close(losses[:1], torch.nn.functional.cross_entropy(logits, targets[:1], reduction="none"))
    expected = (logits.softmax(-1) - torch.nn.functional.one_hot(targets[:1], VOCABULARY)).t() @ hidden[:1].float()
    assert (head.weight.grad.float() - expected).norm() <= 0.01 * expected.norm()


def test_of_no_learned_position_there_is_no_loss_and_no_gradient() -> None:
    hidden, head, targets = case(True)
    losses, _ = chunked_losses(hidden[:0], head, targets[:0])
    losses.sum().backward()
    assert len(losses) == 0 and not hidden.grad.any() and not head.weight.grad.any()


def test_positions_weighted_differently_are_refused_where_the_head_learns() -> None:
    hidden, head, targets = case(True)
    losses, _ = chunked_losses(hidden, head, targets)
    with pytest.raises(RuntimeError, match="positions are weighted differently"):
        (losses * torch.arange(NUM_ROWS)).sum().backward()


def test_logits_far_apart_have_a_finite_loss() -> None:
    head = torch.nn.Linear(1, 2, bias=False)
    head.weight.data = torch.tensor([[1000.0], [0.0]])
    losses, is_top1 = chunked_losses(torch.ones(2, 1), head, torch.tensor([1, 0]))
    assert losses.tolist() == [1000.0, 0.0] and is_top1.tolist() == [0.0, 1.0]


def test_of_equal_logits_the_first_leads() -> None:
    head = torch.nn.Linear(1, 3, bias=False)
    head.weight.data = torch.tensor([[0.0], [5.0], [5.0]])
    _, is_top1 = chunked_losses(torch.ones(2, 1), head, torch.tensor([1, 2]))
    assert is_top1.tolist() == [1.0, 0.0]


def test_a_head_with_more_than_a_matrix_goes_the_plain_way() -> None:
    assert can_chunk(torch.nn.Linear(2, 3, bias=False), torch.float32)
    assert not can_chunk(torch.nn.Linear(2, 3), torch.float32)
    assert not can_chunk(torch.nn.Linear(2, 3, bias=False), torch.float16)
