"""`merge`: an adapter in, one standalone model out, proven equal to base + adapter."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_instruct.commands.hub_ids import hub_ids_of_adapter
from peft_instruct.environment import prepare_environment, seen_from
from peft_instruct.errors import AdapterError
from peft_instruct.recipe.shipped import find_adapter

if TYPE_CHECKING:
    from peft_instruct.adapter.merge import MergeReport


@dataclass(frozen=True)
class MergeResult:
    report: MergeReport

    def record(self) -> dict[str, Any]:
        return self.report.record()

    def text(self) -> str:
        report, difference = self.report, self.report.difference
        other_text = "parts at a tie" if report.dtype == "fp32" else "not equal"
        lines = [
            f"{report.folder}: {report.num_bytes / 1e6:.1f} MB in {report.dtype}",
            f"proof, read back by a fresh process: max |Δlogit| {difference.largest_logit_difference:.1e} "
            f"(up to {report.tolerance * max(1.0, difference.largest_logit):.1e} is rounding), argmax agreement "
            f"{difference.argmax_agreement:.1%}, greedy text {'equal' if report.equal_greedy_text else other_text}",
        ]
        if report.from_quantized is not None:
            away = report.from_quantized
            lines.append(
                f"merged into the original base, not the quantised one it was trained on: max |Δlogit| "
                f"{away.largest_logit_difference:.2f} of {away.largest_logit:.1f}, argmax agreement "
                f"{away.argmax_agreement:.1%} between the two"
            )
        lines.append(f'next: peft-instruct generate {shlex.quote(str(report.folder))} "Name three primary colours."')
        return "\n".join(lines)


def merge(
    adapter_path: str,
    *,
    out: Path | None = None,
    dtype: str = "fp32",
    base: str | None = None,
    device: str = "cpu",
    say: Callable[[str], None],
) -> MergeResult:
    """Merge an adapter into its base.

    Args:
        out: the new folder; `<adapter>-merged` beside the adapter by default.
        device: where the arithmetic happens; the CPU has the memory and is exact.

    Raises:
        AdapterError: the folder exists, the adapter is unusable, or the merged model is not equal to it.
    """
    path = find_adapter(adapter_path, say)
    here = Path(adapter_path).absolute()
    folder = out or Path(seen_from(here.with_name(f"{here.name}-merged"), Path.cwd()))
    if folder.exists():
        raise AdapterError(f"{folder}: exists already. Remove it, or name another folder with --out.")
    hub = prepare_environment(hub_ids_of_adapter(path, base))
    from peft_instruct.adapter.folder import open_adapter
    from peft_instruct.adapter.merge import merge_adapter
    from peft_instruct.model.device import choose_compute

    adapter = open_adapter(path)
    say(f"merging {path} into {adapter.manifest.base.id} in fp32")
    return MergeResult(merge_adapter(adapter, folder, choose_compute(device, "fp32"), hub, dtype=dtype, base=base))
