"""A trainer over the tiny base, put together as `train` does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from peft_instruct.data.prepare import read_instruction_data
from peft_instruct.data.tokens import tokenize
from peft_instruct.environment import HubState
from peft_instruct.model.adapters import make_trainable
from peft_instruct.model.base import load_base
from peft_instruct.model.device import choose_compute
from peft_instruct.model.location import locate
from peft_instruct.recipe import load_recipe
from peft_instruct.training.sft import build_trainer
from peft_instruct.training.trainer import CompletionTrainer

MakeTrainer = Callable[..., CompletionTrainer]


@pytest.fixture
def make_trainer(tiny_recipe: Path, tmp_path: Path) -> MakeTrainer:
    """`make_trainer("training.batch_size=4", callbacks=[…])` -> a trainer ready to train."""

    def make(*overrides: str, callbacks: Sequence[Any] = (), folder: Path = tmp_path) -> CompletionTrainer:
        recipe = load_recipe(str(tiny_recipe), overrides)
        compute = choose_compute(recipe.training.device, recipe.training.precision)
        location = locate(recipe.model.base, "main", HubState(False))
        base = load_base(recipe.model, location, compute)
        data = read_instruction_data(recipe.data, recipe.training.seed)
        train, _ = tokenize(data.train, base.tokenizer, max_length=recipe.data.max_length)
        validation, _ = tokenize(data.validation, base.tokenizer, max_length=recipe.data.max_length)
        trainable = make_trainable(base, recipe.method, recipe.training.seed, recipe.speed.frozen_weights)
        return build_trainer(recipe, base, trainable, train, validation, folder=folder, callbacks=callbacks)

    return make
