"""What must be settled before the libraries are imported: no telemetry, no network unless asked for, quiet imports.

huggingface_hub reads these variables once, at import (huggingface_hub 2.4, constants.py); torch reads
PYTORCH_ENABLE_MPS_FALLBACK in a static initialiser, so accelerate's own setting of it comes too late.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

from peft_instruct.secrets import hide_secrets

PREFLIGHT_SECONDS = 2.0
DEFAULT_ENDPOINT = "https://huggingface.co"
# glibc's malloc.h: mallopt's parameters.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes")


@dataclass(frozen=True)
class HubState:
    """Whether the hub may be asked, and if not, why not."""

    reachable: bool
    reason: str = ""


def prepare_environment(hub_ids: list[str]) -> HubState:
    """Set the environment of a command before it imports torch; ask the hub only where an id needs it.

    Args:
        hub_ids: the models and data sets that are not local; none of them means that nothing goes out.
    """
    for name in (
        "HF_HUB_DISABLE_TELEMETRY",
        "DO_NOT_TRACK",
        "HF_HUB_DISABLE_UPDATE_CHECK",
        "HF_HUB_DISABLE_PROGRESS_BARS",
    ):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # oneDNN compiles a kernel for every shape and keeps the last 1,024. Rows of every length come to 1,600 in 200 steps
    # of GPT-2, and with AMX a twentieth of their time went into compiling. A kernel takes 0.6 to 1 MB there.
    if "DNNL_PRIMITIVE_CACHE_CAPACITY" not in os.environ:
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "2048")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    # trl 1.16 sets `gradient_checkpointing`, which transformers 5.23 renames: warnings that no user can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft)\.")
    # bitsandbytes 0.50 logs a failed look-up of an optional kernel at every import (backends/cpu/ops.py).
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    # What `accelerate launch` exports of precision, device and compilation goes before what a recipe says of them.
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
    state = _hub_state(hub_ids)
    if not state.reachable:
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    return state


def in_own_process(module: str, *arguments: object) -> list[str]:
    """The command that runs a module of ours; `python -m` takes modules of the working folder for those of Python.

    A package that is imported from there all the same (a checkout that is not installed) is found where it is.
    """
    start = (
        "import runpy, sys; sys.path = [place for place in sys.path if place]; home = sys.argv.pop(1); "
        "home in sys.path or sys.path.insert(0, home); "
        "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
    )
    home = Path(__file__).resolve().parent.parent
    return [sys.executable, "-c", start, str(home), module, *map(str, arguments)]


def keep_freed_memory() -> None:
    """Freed memory stays with the process, in large pages: a step frees gigabytes that the next one wants again.

    glibc gives every large block back to the system, and each page of it is zeroed anew at its next use: a quarter of
    a step of full training. For a process of our own, before it imports torch: nothing of it can be taken back. What
    the user has set (MALLOC_…_, GLIBC_TUNABLES) stays, and another C library is left alone.
    """
    # torch 2.13, c10/core/impl/alloc_cpu.cpp: blocks of 2 MB and more are aligned, and marked, for large pages.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    is_set = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if is_set or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    # Before 2.35 no more than 32 MB, and refused otherwise; without it the next line would make things worse, since
    # setting one of them ends that glibc learns the other by itself.
    if mallopt(M_MMAP_THRESHOLD, 2**31 - 1):
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        # What is freed stays with the arena, and other threads than the main one need little: a few for all of them,
        # where glibc would make eight for each core. One alone, for which the tokenizer's threads and the main one
        # wait, makes preparation a tenth slower (2 cores).
        mallopt(M_ARENA_MAX, 1 + (os.cpu_count() or 1))


def _hub_state(hub_ids: list[str]) -> HubState:
    if not hub_ids:
        return HubState(False, "not asked: nothing of this command is on the hub")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return HubState(False, "HF_HUB_OFFLINE is set")
    # Here, for every command imports this module: it takes longer than the rest of what most of them need to start.
    import urllib.error
    import urllib.request

    endpoint = os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT)
    outcome: list[str] = []  # empty until the hub has answered or refused

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=PREFLIGHT_SECONDS)
        except urllib.error.HTTPError:
            outcome.append("")  # an answer is an answer
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            if not isinstance(reason, TimeoutError):
                outcome.append(hide_secrets(f"{endpoint} cannot be reached ({reason})"))
        else:
            outcome.append("")

    # In a thread: looking a name up can hang for half a minute and takes no timeout.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PREFLIGHT_SECONDS * 1.5)
    reason = outcome[0] if outcome else hide_secrets(f"{endpoint} did not answer within {PREFLIGHT_SECONDS:g} s")
    return HubState(not reason, reason)


def seen_from(path: str | Path, here: Path) -> str:
    """A path relative to `here`, with `/`; on another drive, where there is no such way, as it is."""
    try:
        return Path(os.path.relpath(path, here)).as_posix()
    except ValueError:
        return str(path)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide a result, without importing them."""
    from importlib import metadata

    versions = {"python": platform.python_version()}
    for name in ("peft-instruct", *LIBRARIES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
