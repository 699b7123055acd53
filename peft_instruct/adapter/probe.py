"""The probe answers of a model folder, in a process of its own: `python -m peft_instruct.adapter.probe FOLDER OUT`.

A fresh process reads what is on the disk and nothing else: no patched forward, no tied memory, no cached weight.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from peft_instruct.environment import in_own_process, prepare_environment
from peft_instruct.errors import AdapterError


def probe_in_fresh_process(folder: Path, out: Path) -> None:
    """Run this module on a folder; `out` gets the logits, and `out` with .json the greedy ids.

    Raises:
        AdapterError: the folder cannot be loaded or run.
    """
    command = in_own_process("peft_instruct.adapter.probe", folder, out)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise AdapterError(f"{folder}: written, but a fresh process cannot run it ({last_line}).")


def main(folder: Path, out: Path) -> None:
    from safetensors.torch import save_file

    from peft_instruct.adapter.folder import load_tuned, open_adapter
    from peft_instruct.adapter.proofs import NUM_GREEDY_TOKENS, greedy, probe_inputs, probe_logits
    from peft_instruct.model.device import choose_compute

    compute = choose_compute("cpu", "fp32")
    tuned = load_tuned(open_adapter(folder), compute, prepare_environment([]))
    inputs = probe_inputs(tuned.tokenizer, tuned.template, tuned.base.positions - NUM_GREEDY_TOKENS)
    logits = probe_logits(tuned.model, inputs, compute.torch_device)
    save_file({f"probe_{number}": value.contiguous() for number, value in enumerate(logits)}, str(out))
    continuations = greedy(tuned.model, inputs, compute.torch_device, tuned.base.model.config.pad_token_id)
    texts = [continuation.ids for continuation in continuations]
    out.with_suffix(".json").write_text(json.dumps(texts), encoding="utf-8")


if __name__ == "__main__":
    prepare_environment([])
    main(Path(sys.argv[1]), Path(sys.argv[2]))
