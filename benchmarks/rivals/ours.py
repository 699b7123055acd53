"""peft-instruct, from the same rows: the recipe's own trainer with the same clock."""

from __future__ import annotations

import sys
from pathlib import Path

from peft_instruct.environment import HubState, keep_freed_memory, prepare_environment

keep_freed_memory()
prepare_environment([])
sys.path.insert(0, str(Path(__file__).parent))
from clock import Clock, answer, request  # noqa: E402

from peft_instruct.data.prepare import read_instruction_data  # noqa: E402
from peft_instruct.data.tokens import model_rows  # noqa: E402
from peft_instruct.model.adapters import make_trainable  # noqa: E402
from peft_instruct.model.base import load_base  # noqa: E402
from peft_instruct.model.device import choose_compute  # noqa: E402
from peft_instruct.model.location import locate  # noqa: E402
from peft_instruct.recipe import load_recipe  # noqa: E402
from peft_instruct.training import sampler  # noqa: E402
from peft_instruct.training.sft import build_trainer  # noqa: E402

# The few rows stand for one window of a long epoch, as they are one mega-batch of transformers' group_by_length.
sampler.LEAST_WINDOWS = 1
asked = request()
clock = Clock(asked["num_warmup"])
recipe = load_recipe(
    f"gpt2_{asked['method']}",
    [
        f"model.base={asked['base']}",
        "model.dropout=0",
        f"data.train={asked['rows']}",
        "data.validation_fraction=0",
        f"data.max_length={asked['max_length']}",
        f"training.batch_size={asked['batch_size']}",
        "training.accumulation=1",
        f"training.max_steps={asked['num_steps']}",
        f"training.learning_rate={asked['learning_rate']}",
        "training.log_every=1",
        f"training.device={asked['device']}",
        *asked.get("overrides", []),
    ],
)
compute = choose_compute(recipe.training.device, recipe.training.precision)
base = load_base(recipe.model, locate(recipe.model.base, "main", HubState(False)), compute)
tokens, _ = model_rows(read_instruction_data(recipe.data, 0).train, base.tokenizer, recipe.data)
trainable = make_trainable(base, recipe.method, 0, recipe.speed.frozen_weights)
trainer = build_trainer(recipe, base, trainable, tokens, [], folder=Path(asked["folder"]), callbacks=[clock])
trainer.data_collator = clock.counting(trainer.data_collator)
trainer.train()
answer(clock.record(f"gpt2_{asked['method']}, dropout 0, {compute.precision}"))
