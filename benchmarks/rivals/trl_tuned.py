"""TRL's SFTTrainer as an expert of the machine would set it: no checkpointing, rows grouped by length, bf16 base."""

from __future__ import annotations

import torch
from clock import Clock, answer, request, rows
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

asked = request()
clock = Clock(asked["num_warmup"])
is_lora = asked["method"] == "lora"
model = AutoModelForCausalLM.from_pretrained(
    asked["base"],
    dtype=torch.bfloat16 if is_lora and asked["bf16"] else torch.float32,
    attn_pdrop=0.0,
    embd_pdrop=0.0,
    resid_pdrop=0.0,
)
trainer = SFTTrainer(
    model=model,
    args=SFTConfig(
        output_dir=asked["folder"],
        max_length=asked["max_length"],
        per_device_train_batch_size=asked["batch_size"],
        max_steps=asked["num_steps"],
        learning_rate=asked["learning_rate"],
        gradient_checkpointing=False,
        train_sampling_strategy="group_by_length",
        bf16=asked["bf16"],
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=asked["device"] == "cpu",
    ),
    train_dataset=Dataset.from_list(rows(asked)),
    peft_config=LoraConfig(
        r=16, lora_alpha=32, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    if is_lora
    else None,
    callbacks=[clock],
)
trainer.data_collator = clock.counting(trainer.data_collator)
trainer.train()
base = "fp32" if not asked["bf16"] else "base in bf16" if is_lora else "fp32 weights, bf16 autocast"
answer(clock.record(f"no gradient checkpointing, group_by_length, {base}, dropout 0"))
