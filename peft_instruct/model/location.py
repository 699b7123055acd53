"""Where a base is: a folder, the starter, or a hub id fetched once into a folder. Everything else reads folders."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_instruct.environment import DEFAULT_ENDPOINT, HubState
from peft_instruct.errors import ModelError, first_line
from peft_instruct.model.screening import MOST_BYTES, model_problems, read_json
from peft_instruct.recipe.shipped import PACKAGE
from peft_instruct.whole_file import blocks_of

STARTER = "starter"
STARTER_FOLDER = PACKAGE / "starter" / "base"
WANTED_FILES = ["*.json", "*.safetensors", "merges.txt", "*.model", "*.jinja"]


@dataclass(frozen=True)
class Location:
    """A base on this machine.

    Attributes:
        id: as the recipe names it.
        folder: where its files are.
        revision: the commit of a hub id; empty for a folder.
    """

    id: str
    folder: Path
    revision: str = ""


def is_hub_model(base: str) -> bool:
    is_local = base == STARTER or base.startswith((".", "/", "~")) or "\\" in base or Path(base).exists()
    return not is_local and base.count("/") <= 1


def locate(base: str, revision: str, hub: HubState, place: str = "model.base") -> Location:
    """The folder of a base, fetched from the hub where it is not local.

    Raises:
        ModelError: not there, or not reachable and not cached; says what was tried and the ways on.
    """
    if base == STARTER:
        if not (STARTER_FOLDER / "config.json").is_file():
            raise ModelError(f"{place}: the starter model is not in this installation ({STARTER_FOLDER.name}/).")
        return Location(base, STARTER_FOLDER)
    folder = Path(base)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{place}: the folder {base!r} holds no config.json, so it is no model. "
                f"expected one written by save_pretrained; where {base!r} is meant as a hub id, rename the folder."
            )
        return Location(base, folder)
    if not is_hub_model(base):
        raise ModelError(f"{place}: {base!r} is not there. expected a folder with config.json, a hub id, or starter.")
    return _fetch(base, revision, hub, place)


def _fetch(base: str, revision: str, hub: HubState, place: str) -> Location:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    endpoint = os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT)
    try:
        folder = Path(snapshot_download(base, revision=revision, allow_patterns=WANTED_FILES))
    except HFValidationError as error:
        raise ModelError(
            f"{place}: {base!r} is no folder here and no hub id. expected a folder with config.json, owner/name, or "
            "starter."
        ) from error
    except GatedRepoError as error:
        raise ModelError(f"{place}: {base} is gated. Accept its terms on {endpoint}/{base}, then log in.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{place}: {base!r} is no folder here and no model on {endpoint} (or private: log in)."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        said = hub.reason or f"{endpoint}: {first_line(error)}"
        tried = f"a folder here: none; the hub cache: not in it; the hub: {said}"
        raise ModelError(
            f"{place}: {base!r} (revision {revision}) is not on this machine. Tried {tried}. Ways on: a folder with "
            "the model (--set model.base=FOLDER), or the built-in starter (peft-instruct train quickstart_lora)."
        ) from error
    if not (folder / "config.json").is_file():
        raise ModelError(f"{place}: {base} (revision {revision}) has no config.json on the hub.")
    return Location(base, folder, folder.name)


def read_config(location: Location, place: str = "model.base") -> dict[str, Any]:
    """The model's config.json, before any library interprets it.

    Raises:
        ModelError: unreadable, or something in the folder is refused (model/screening.py); all of it is named.
    """
    try:
        config = read_json(location.folder / "config.json", MOST_BYTES["config.json"])
    except (OSError, ValueError) as error:
        raise ModelError(f"{place}: config.json of {location.id!r} cannot be read ({error}).") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"{place}: config.json of {location.id!r} names no model_type.")
    problems = model_problems(location.folder)
    if problems:
        raise ModelError.of(f"{place}: {location.id!r}", [f"{problem}. Refused." for problem in problems])
    return config


def weight_files(location: Location) -> list[Path]:
    """The safetensors files of the weights.

    Raises:
        ModelError: none; pickled weights are not read.
    """
    files = sorted(path for path in location.folder.glob("*.safetensors") if not path.name.startswith("adapter_"))
    if not files:
        pickled = sorted(path.name for suffix in ("bin", "pt", "pth") for path in location.folder.glob(f"*.{suffix}"))
        found = f"found {', '.join(pickled)}: pickles can run code and are not read" if pickled else "no weights found"
        if location.revision:
            found = f"the repository has none at revision {location.revision[:12]}; pickled weights are not fetched"
        raise ModelError(
            f"model.base: {location.id!r} has no .safetensors ({found}). Convert it, or choose another revision."
        )
    return files


def weight_fingerprint(location: Location) -> str:
    """SHA-256 over the weight files: the same whatever precision the model is later loaded in."""
    digest = hashlib.sha256()
    for path in weight_files(location):
        digest.update(path.name.encode())
        for block in blocks_of(path):
            digest.update(block)
    return digest.hexdigest()
