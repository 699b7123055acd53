"""README.md of an adapter folder: a model card whose front matter the hub accepts, and no path of this machine."""

from __future__ import annotations

from typing import Any

from peft_instruct.adapter.manifest import AdapterManifest
from peft_instruct.secrets import hide_secrets

LIBRARY = {"lora": "peft", "full": "transformers", "merged": "transformers"}


def card(manifest: AdapterManifest, description: str, scores: dict[str, Any]) -> str:
    """The card of a finished folder.

    Args:
        scores: name -> (base, tuned) or name -> value, as measured on held-out rows.
    """
    # Neither a folder's name nor the starter is a model id: the hub refuses it in `base_model`.
    hub_base = "" if manifest.base.relative_path or not manifest.base.revision else f"base_model: {manifest.base.id}\n"
    front = (
        "---\n"
        f"library_name: {LIBRARY[manifest.kind]}\n"
        f"{hub_base}"
        "pipeline_tag: text-generation\n"
        f"tags:\n- peft-instruct\n- {manifest.kind}\n- trl\n- sft\n"
        "---\n"
    )
    revision = f" (revision `{manifest.base.revision}`)" if manifest.base.revision else ""
    from_scratch = not manifest.base.fingerprint
    kinds = {"lora": "A LoRA adapter for", "full": "A full fine-tune of", "merged": "A merged model from"}
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in scores.items())
    table = f"\n## Held-out rows\n\n| measure | base → tuned |\n|---|---|\n{rows}\n" if rows else ""
    return hide_secrets(
        f"{front}\n# {manifest.name}\n\n{description or 'Instruction-tuned with peft-instruct.'}\n\n"
        f"{'Trained from random weights with the tokenizer of' if from_scratch else kinds[manifest.kind]} "
        f"`{manifest.base.id}`{revision}{', a folder of its maker' if manifest.base.relative_path else ''}, made by "
        f"peft-instruct {manifest.environment.get('versions', {}).get('peft-instruct', '')}.\n{table}\n"
        "## Prompt\n\nIt follows instructions only in the prompt that it was trained with:\n\n"
        f"```text\n{manifest.template.without_input}\n```\n\n"
        '## Use\n\n```bash\npeft-instruct generate FOLDER "Name three primary colours."\n```\n\n'
        "What was measured and proven is in `manifest.json`"
        f"{'' if manifest.kind == 'merged' else '; the report of the run is `report.html`'}.\n"
    )


def _cell(value: Any) -> str:
    values = value if isinstance(value, tuple | list) else (value,)
    return " → ".join("–" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)
