"""What stands behind the last attention: nothing but the head reads it, at the positions that are scored.

Keys and values of every token go into other tokens' states, in the last block too; the projection of what its attention
found and its MLP do not. Elsewhere they are left out, as if they were zero there.
"""

# N tokens, M of them computed, D width

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from peft_instruct.model.families import FAMILIES

FEW, MANY = 32, 128
"""Tokens are filled up to a multiple of MANY, up to MANY themselves of FEW: for every number of them oneDNN compiles
two dozen kernels, and keeps them."""


def after_last_attention(model: nn.Module, config: PreTrainedConfig) -> list[nn.Module]:
    """Of a known family; none of another, which may look at several tokens there or give more than their states."""
    family, num_blocks = FAMILIES.get(config.model_type), config.num_hidden_layers
    if family is None:
        return []
    stacks = (each for each in model.modules() if isinstance(each, nn.ModuleList) and len(each) == num_blocks)
    # The output comes last among the names of attention's matrices.
    ends = ("mlp", family.attention[-1])
    return [module for name, module in next(stacks)[-1].named_modules() if name.endswith(ends)]


@contextmanager
def computed_where(modules: Sequence[nn.Module], is_read: torch.Tensor) -> Iterator[None]:
    """Within the block the modules give zeros where `is_read`, of the shape of the tokens, is false.

    Their backward may run later, but not recompute the forward pass.
    """
    is_read_N = is_read.flatten()
    read, others = is_read_N.nonzero()[:, 0], (~is_read_N).nonzero()[:, 0]
    # Each once: the gradient of a token that stood there twice would be added twice.
    num_read = max(1, len(read))
    num_computed = num_read + -num_read % (FEW if num_read <= MANY else MANY)
    token_M = torch.cat([read, others[: num_computed - len(read)]])

    def before(_: nn.Module, args: tuple[torch.Tensor]) -> Any:
        return args[0].flatten(0, -2).index_select(0, token_M)[None]

    def after(_: nn.Module, args: Any, output_1MD: torch.Tensor) -> torch.Tensor:
        D = output_1MD.shape[-1]
        output_ND = output_1MD.new_zeros(is_read.numel(), D).index_copy_(0, token_M, output_1MD[0])
        return output_ND.view(*is_read.shape, D)

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after).remove)
        yield
