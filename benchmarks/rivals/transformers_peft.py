"""transformers.Trainer with PEFT, as the scripts of many tutorials have it: masked labels, bf16, grouped by length."""

from __future__ import annotations

from clock import Clock, answer, request, rows
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

asked = request()
clock = Clock(asked["num_warmup"])
tokenizer = AutoTokenizer.from_pretrained(asked["base"])
tokenizer.pad_token = tokenizer.eos_token


def tokenised(row: dict[str, str]) -> dict[str, list[int]]:
    prompt = tokenizer(row["prompt"])["input_ids"]
    ids = (prompt + tokenizer(row["completion"] + tokenizer.eos_token)["input_ids"])[: asked["max_length"]]
    return {"input_ids": ids, "labels": ([-100] * len(prompt) + ids[len(prompt) :])[: len(ids)]}


data = Dataset.from_list(rows(asked))
data = data.map(tokenised, remove_columns=data.column_names)
model = AutoModelForCausalLM.from_pretrained(asked["base"], attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
if asked["method"] == "lora":
    targets = ["c_attn", "c_proj", "c_fc"]
    model = get_peft_model(
        model, LoraConfig(r=16, lora_alpha=32, target_modules=targets, fan_in_fan_out=True, task_type="CAUSAL_LM")
    )
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir=asked["folder"],
        per_device_train_batch_size=asked["batch_size"],
        max_steps=asked["num_steps"],
        learning_rate=asked["learning_rate"],
        bf16=asked["bf16"],
        train_sampling_strategy="group_by_length",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=asked["device"] == "cpu",
    ),
    train_dataset=data,
    data_collator=clock.counting(DataCollatorForSeq2Seq(tokenizer, padding=True)),
    callbacks=[clock],
)
trainer.train()
precision = "bf16 autocast" if asked["bf16"] else "fp32"
answer(clock.record(f"{precision}, no gradient checkpointing, group_by_length, dropout 0"))
