"""Where a run happens: `<adapter>.run` beside the adapter's own folder, one writer at a time, renamed at the end.

So `adapters/gpt2-lora` is either not there, or a finished adapter: an earlier one serves until the new one is proven.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from peft_instruct.adapter.storage import LOCK, MANIFEST, sync_folder
from peft_instruct.errors import MOST_PROBLEMS_SHOWN, AdapterError, PeftInstructError, RecipeError
from peft_instruct.model.screening import read_json
from peft_instruct.recipe import Recipe, load_recipe
from peft_instruct.recipe.writing import change, differences, recipe_values

Say = Callable[[str], None]
OURS = frozenset({
    MANIFEST, "recipe.yaml", "metrics.jsonl", "ledger.jsonl", "README.md", "report.html", "loss.svg", "checkpoints",
    LOCK,
    "config.json", "generation_config.json", "chat_template.jinja", "vocab.json", "merges.txt",
})  # fmt: skip
"""What a run writes into its folder, besides files that begin with one of the next."""
OF_FILE_MANAGERS = frozenset({".DS_Store", ".directory", "Thumbs.db", "desktop.ini"})
"""What comes into a folder by being looked at."""
MOST_LOCK_BYTES = 1 << 10
WEIGHTS_AND_TOKENIZER = ("model", "adapter_", "tokenizer", "special_tokens", "added_tokens")


@dataclass(frozen=True)
class RunFolder:
    """A claimed place.

    Attributes:
        final: where the adapter lands, and where an earlier one may be.
        work: where the run writes until then.
        is_finished: `final` holds what this very recipe has trained; that its base and data are the same is not known.
    """

    final: Path
    work: Path
    is_finished: bool = False

    @property
    def replaced(self) -> Path:
        return self.final.with_name(f"{self.final.name}.replaced")

    def put_in_place(self) -> None:
        """The finished folder under its own name, in two renames; only then does an earlier one go."""
        if self.final.exists():
            os.rename(self.final, self.replaced)
        os.rename(self.work, self.final)
        sync_folder(self.final.parent)
        self._tidy()

    def _tidy(self) -> None:
        """What is of use only on the way there; the lock goes last, so that one that is left says that more is."""
        shutil.rmtree(self.replaced, ignore_errors=True)
        shutil.rmtree(self.final / "checkpoints", ignore_errors=True)
        (self.final / LOCK).unlink(missing_ok=True)

    def recover(self) -> None:
        """What a crash left: between the two renames the earlier adapter comes back, after them the rest is tidied."""
        if self.replaced.is_dir() and not self.final.exists():
            os.rename(self.replaced, self.final)
        elif (self.final / MANIFEST).is_file() and (self.replaced.is_dir() or (self.final / LOCK).is_file()):
            self._tidy()


@contextmanager
def claimed(final: Path, recipe: Recipe, if_exists: str, say: Say) -> Iterator[RunFolder]:
    """The folder of a run, held against every other process until the block ends.

    Raises:
        AdapterError: it holds a finished adapter that may not be replaced, anything that no run of ours wrote, or
            what this run reads; or it cannot be written.
        PeftInstructError: another process writes there.
    """
    _check_place(final)
    folder = _place_of(final)
    lock = FileLock(folder.work / LOCK)
    try:
        folder.work.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        _take(folder.work / LOCK, say)
    except Timeout as error:
        raise PeftInstructError(
            f"{folder.work}: run.lock is held by {_holder(folder.work / LOCK)}. one run writes a folder at a time. "
            "Wait for it, stop it, or name another folder with --out."
        ) from error
    except OSError as error:
        raise AdapterError(f"{folder.work}: cannot be written ({_why(folder.work, error)}). Name another folder with "
                           "--out.") from error  # fmt: skip
    try:
        folder.recover()
        yield _checked(folder, recipe, if_exists)
    finally:
        # Unlinked while it is held: who waits for it sees that it is gone. A run that left nothing leaves no folder.
        # Once a run is put in its place, the next one may have a lock there already.
        with suppress(OSError):
            if _names_this_process(folder.work / LOCK):
                (folder.work / LOCK).unlink()
        lock.release()
        with suppress(OSError):
            folder.work.rmdir()


def check_free(final: Path, recipe: Recipe, if_exists: str) -> None:
    """Whether a run could have the folder, without touching it; another process that writes there is not seen.

    Raises:
        AdapterError: as `claimed`, for what the folder is and holds.
    """
    _check_place(final)
    folder = _checked(_place_of(final), recipe, if_exists)
    if not folder.is_finished and not os.access(there := _nearest(folder.work), os.W_OK):
        raise AdapterError(f"{folder.work}: cannot be written ({_owner(there)}). Name another folder with --out.")


def _place_of(final: Path) -> RunFolder:
    return RunFolder(final, final.with_name(f"{final.name}.run"))


def _checked(folder: RunFolder, recipe: Recipe, if_exists: str) -> RunFolder:
    _check_content(folder, recipe)
    if if_exists == "refuse" and folder.final.is_dir() and any(folder.final.iterdir()):
        _check_finished(folder.final, recipe)
        return replace(folder, is_finished=True)
    return folder


def _check_place(final: Path) -> None:
    if final.is_symlink() or (final.exists() and not final.is_dir()) or Path.cwd().is_relative_to(final.resolve()):
        raise AdapterError(f"{final}: is a file, a link or the working folder. Name a folder of its own with --out.")
    if os.path.ismount(final):
        raise AdapterError(f"{final}: is a mount point, which cannot be renamed. Name a folder in it with --out.")


def _check_content(folder: RunFolder, recipe: Recipe) -> None:
    for place in (folder.final, folder.work):
        found = {path.name for path in place.iterdir()} - OF_FILE_MANAGERS if place.is_dir() else set()
        if place == folder.work:
            # Half-written files that a crash left are hidden; `begin` takes them away.
            found = {name for name in found if not name.startswith(".")} - {LOCK}
        foreign = sorted(name for name in found if name not in OURS and not name.startswith(WEIGHTS_AND_TOKENIZER))
        if foreign or (found and "recipe.yaml" not in found):
            named = ", ".join(foreign[:3]) or "no recipe.yaml"
            raise AdapterError(f"{place}: holds what no run wrote ({named}). Name another folder with --out.")
        for key, read in (("model.base", recipe.model.base), *(("data", name) for name in recipe.data.all_names())):
            if found and Path(read).exists() and Path(read).resolve().is_relative_to(place.resolve()):
                raise AdapterError(f"{place}: {key} is in it and would be lost. Name another folder with --out.")


def _check_finished(final: Path, recipe: Recipe) -> None:
    """Refuse all but a finished adapter of this recipe, as its recipe.yaml says, which the manifest vouches for."""
    if not (final / MANIFEST).is_file():
        raise kept(final, "an unfinished run")
    try:
        then = load_recipe(str(final / "recipe.yaml"))
    except RecipeError as error:
        raise kept(final, "a damaged adapter", [str(error)]) from error
    others = [change(*found) for found in differences(recipe_values(then), recipe_values(recipe))]
    if others:
        raise kept(final, "a finished adapter of another recipe", others)


def kept(final: Path, what: str, why: Sequence[str] = ()) -> AdapterError:
    """The refusal to train over what a folder holds."""
    lines = [*why[:MOST_PROBLEMS_SHOWN], *(["..."] if len(why) > MOST_PROBLEMS_SHOWN else [])]
    return AdapterError(
        "\n  ".join([
            f"{final}: holds {what}; nothing was trained. Replace it with --if-exists replace, or name another "
            "folder with --out.",
            *lines,
        ])
    )  # fmt: skip


def _take(lock: Path, say: Say) -> None:
    """Write this process into the lock that it holds; a name in it is of one that was killed."""
    if lock.stat().st_size:
        say(f"{lock.parent}: took over the lock of {_holder(lock)}, which ended without releasing it")
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    lock.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": started}) + "\n")


def _names_this_process(lock: Path) -> bool:
    return _holder(lock).startswith(f"process {os.getpid()} on {socket.gethostname()} ")


def _holder(lock: Path) -> str:
    try:
        holder = read_json(lock, MOST_LOCK_BYTES)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _why(folder: Path, error: OSError) -> str:
    """The error, and who may write in the nearest folder that is there."""
    return f"{error.strerror}; {_owner(_nearest(folder))}"


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))


def _owner(folder: Path) -> str:
    status = folder.stat()
    return f"{folder} has mode {status.st_mode & 0o777:o} and owner {status.st_uid}"
