"""LLaMA-Factory's own sft stage, from Python with our clock among its callbacks; its best settings for this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from clock import Clock, answer, request, rows

asked = request()
folder = Path(asked["folder"])
folder.mkdir(parents=True, exist_ok=True)
# Its `empty` template joins prompt and response as they are: the same prompts as everybody's.
records = [{"instruction": row["prompt"], "input": "", "output": row["completion"]} for row in rows(asked)]
(folder / "rows.json").write_text(json.dumps(records), encoding="utf-8")
(folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}), encoding="utf-8")

from llamafactory.data import collator as collators  # noqa: E402
from llamafactory.train.tuner import run_exp  # noqa: E402


class AnsweringClock(Clock):
    """Answers when training ends: LLaMA-Factory 0.9.5 fails at the model card that it writes after a full training."""

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        precision = "bf16" if asked["bf16"] else "fp32"
        answer(self.record(f"no gradient checkpointing, group_by_length, {precision}, template empty"))


clock = AnsweringClock(asked["num_warmup"])
# Its "all" looks for linear layers and finds none in GPT-2.
lora = {"lora_rank": 16, "lora_alpha": 32, "lora_target": "c_attn,c_proj,c_fc"}
plain = collators.SFTDataCollatorWith4DAttentionMask.__call__


def counted(self: Any, features: Any) -> Any:
    batch = plain(self, features)
    learned = int((batch["labels"][:, 1:] != -100).sum())
    clock.batches.append((int((batch["attention_mask"] > 0).sum()), batch["input_ids"].numel(), learned))
    return batch


collators.SFTDataCollatorWith4DAttentionMask.__call__ = counted
run_exp(
    args={
        "model_name_or_path": asked["base"],
        "stage": "sft",
        "do_train": True,
        "finetuning_type": asked["method"],
        **(lora if asked["method"] == "lora" else {}),
        "dataset": "rows",
        "dataset_dir": str(folder),
        "template": "empty",
        "cutoff_len": asked["max_length"],
        "preprocessing_num_workers": 1,
        "output_dir": str(folder / "out"),
        "overwrite_output_dir": True,
        "per_device_train_batch_size": asked["batch_size"],
        "gradient_accumulation_steps": 1,
        "max_steps": asked["num_steps"],
        "learning_rate": asked["learning_rate"],
        "disable_gradient_checkpointing": True,
        "train_sampling_strategy": "group_by_length",
        "bf16": asked["bf16"],
        "flash_attn": "sdpa",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": asked["device"] == "cpu",
    },
    callbacks=[clock],
)
