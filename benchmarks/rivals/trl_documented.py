"""TRL's SFTTrainer as its documentation shows it: model by name, prompt-completion rows, PEFT config, its defaults."""

from __future__ import annotations

from clock import Clock, answer, request, rows
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

asked = request()
clock = Clock(asked["num_warmup"], asked["most_seconds"])
trainer = SFTTrainer(
    model=asked["base"],
    args=SFTConfig(
        output_dir=asked["folder"],
        max_length=asked["max_length"],
        per_device_train_batch_size=asked["batch_size"],
        max_steps=asked["num_steps"],
        learning_rate=asked["learning_rate"],
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        bf16=asked["bf16"],
        use_cpu=asked["device"] == "cpu",
    ),
    train_dataset=Dataset.from_list(rows(asked)),
    peft_config=LoraConfig(
        r=16, lora_alpha=32, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    if asked["method"] == "lora"
    else None,
    callbacks=[clock],
)
trainer.data_collator = clock.counting(trainer.data_collator)
trainer.train()
precision = "bf16 autocast" if asked["bf16"] else "bf16 switched off"
answer(clock.record(f"SFTConfig's defaults: {precision}, gradient checkpointing, shuffled rows"))
