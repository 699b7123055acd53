"""Files gone wrong: valid ones with parts cut out, doubled, moved, or replaced by what parsers stumble over."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

ODD_TEXTS = (
    "\x00", "\ufeff", "\t", "\r", "\r\n", "\n\n", " ", "  ", "\u2028", "\x85", "\x1b[2J", "\u202e", "é", "🙂",
    "\ud800", '"', "'", "`", "\\", "\\u", "\\ud800", "\\x", "{", "}", "[", "]", "[[", "{}", "[]", ",", ",,", ":", ": ",
    "::", "-", "- ", "---", "...", "#", "|", ">", "|2-", "&a ", "*a", "<<: *a", "!!", "!!python/object:os.system",
    "!!binary ", "!!set", "!!omap", "!!int x", "!!float ", "!x ", "? ", "%YAML 9.9", "@", "null", "~", "true", "yes",
    "NaN", ".nan", ".inf", "-.inf", "Infinity", "-0", "1e400", "1e-400", "0x1F", "0o17", "1_000", "12:30:45",
    "2024-01-01", "2024-13-45", "9" * 30, "9" * 5000, "1" + "0" * 400, "-1", "0", "0.5", "a" * 300, "[" * 50,
    "{a: " * 40, "../../etc/passwd", "/dev/zero", "extends: gpt2_lora", "extends: r.yaml", "name: con", "null: 1",
    "1: 2", "[a]: b", "? {a: b}", "{instruction}",
)  # fmt: skip
ODD_BYTES = (
    *(text.encode("utf-8", "surrogatepass") for text in ODD_TEXTS),
    *(b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80" * 9),
)


@st.composite
def mutated(draw: st.DrawFn, originals: tuple[bytes, ...]) -> bytes:
    """One of the originals after one to six changes."""
    content = draw(st.sampled_from(originals))
    for _ in range(draw(st.sampled_from((1, 1, 2, 3, 6)))):
        content = _changed(draw, content)
    return content


def _changed(draw: st.DrawFn, content: bytes) -> bytes:
    # hypothesis favours the ends of a range, where every change breaks a file; this scatters them.
    start = (draw(st.integers(0, 1 << 20)) + 4001) * 7919 % (len(content) + 1)
    stop = min(len(content), start + draw(st.sampled_from((0, 1, 2, 5, 20, 200))))
    how = draw(st.sampled_from(("odd", "odd", "cut", "double", "bytes", "lines", "indent", "value", "end")))
    if how == "odd":
        return content[:start] + draw(st.sampled_from(ODD_BYTES)) + content[stop:]
    if how == "cut":
        return content[:start] + content[stop:]
    if how == "double":
        return content[:stop] + content[start:stop] + content[stop:]
    if how == "bytes":
        return content[:start] + draw(st.binary(max_size=8)) + content[stop:]
    if how == "end":
        return content[:start]
    lines = content.split(b"\n")
    one, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    if how == "lines":
        lines[one], lines[other] = lines[other], lines[one]
    elif how == "indent":
        lines[one] = b" " * draw(st.integers(0, 5)) + lines[one].lstrip()
    else:
        key, colon, _ = lines[one].partition(b":")
        lines[one] = key + colon + b" " + draw(st.sampled_from(ODD_BYTES))
    return b"\n".join(lines)


@dataclass
class Fuzzed:
    """What a round of fuzzing came to.

    Attributes:
        slowest_seconds: processor seconds of the slowest case; other work on the machine does not add to it.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_seconds: float = 0.0

    @property
    def num_cases(self) -> int:
        return sum(self.outcomes.values())


def fuzz(originals: tuple[bytes, ...], act: Callable[[bytes], str], num_cases: int, *, repeatable: bool) -> Fuzzed:
    """`act` on so many mutations; it tells the outcome in a word, and raises where it should not.

    Args:
        repeatable: the same mutations each time.
    """
    fuzzed = Fuzzed()

    @settings(
        max_examples=num_cases,
        deadline=None,
        database=None,
        derandomize=repeatable,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(content=mutated(originals))
    def one(content: bytes) -> None:
        began = time.process_time()
        outcome = act(content)
        fuzzed.slowest_seconds = max(fuzzed.slowest_seconds, time.process_time() - began)
        fuzzed.outcomes[outcome] += 1

    one()
    return fuzzed


ROWS = [
    {"instruction": "Name three colours.", "input": "", "output": "Red, green — blue."},
    {"instruction": "Add.", "input": "3 and 4", "output": "7"},
    {"instruction": "Übersetze 東京", "output": "Tokyo 🙂"},
    *({"instruction": f"Tell me of {n} and of what comes after it.", "output": f"{n}. " * 20} for n in range(8)),
]
MESSAGES = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}] * 2
DATA_FILES: dict[str, tuple[bytes, ...]] = {
    ".json": (json.dumps(ROWS, indent=1, ensure_ascii=False).encode(), json.dumps(MESSAGES).encode()),
    ".jsonl": ("\n".join(json.dumps(row) for row in ROWS).encode(), "\n".join(map(json.dumps, MESSAGES)).encode()),
    ".csv": (b'instruction,input,output\n"Add, please.",3 and 4,7\nName it.,,"a ""b""\nc"\n',),
}
