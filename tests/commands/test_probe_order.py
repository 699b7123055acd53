"""Which batches a dry run runs: the longest first and last, one of each shape in between."""

from __future__ import annotations

import pytest

from peft_instruct.commands.probe_order import MOST_SHAPES, ProbeOrder

# Ten batches of two rows: 1 + 8 to 8 + 8 tokens, 7 + 7 and 6 + 8.
LENGTHS = [*(length for short in range(1, 9) for length in (short, 8)), 7, 7, 6, 8]
BATCHES = [range(start, start + 2) for start in range(0, len(LENGTHS), 2)]


@pytest.mark.parametrize(
    ("times", "joins", "num_shapes"),
    [
        (1, False, 1),  # 8 wide
        (1, True, 1),  # all of fewer than 32 tokens
        (32, True, 8),  # 9 to 16 times 32 tokens
        (32, False, 2),
    ],
)
def test_rows_that_follow_one_another_have_as_many_shapes_as_sums_of_tokens(
    times: int, joins: bool, num_shapes: int
) -> None:
    lengths = [times * length for length in LENGTHS]
    order = ProbeOrder.of(BATCHES, lengths, by_tokens=False, joins=joins)
    assert order.num_shapes == num_shapes and len(order.some) == min(num_shapes, MOST_SHAPES)
    run = order.batches()
    assert run[0] == run[-1] == order.longest
    assert max(lengths[row] for row in order.longest) == max(lengths)
