"""Keys and passwords planted in the environment and in a recipe stand in nothing that is said, written or handed on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from peft_instruct.cli import main
from peft_instruct.errors import RecipeError
from peft_instruct.recipe import load_recipe
from peft_instruct.recipe.writing import recipe_hash, recipe_yaml
from peft_instruct.secrets import hide_in, hide_secrets

# Made up; each in the form of its kind. Taken apart, so that no scanner of repositories takes them for real ones.
IN_ENVIRONMENT = {
    "HF_TOKEN": "hf_" + "kMxQvZsPrTdLwYbNcJhGfDsApOiUyTrEw",
    "HUGGING_FACE_HUB_TOKEN": "a plain word of 1999",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "AWS_ACCESS_KEY_ID": "AKIA" + "IOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY",
    "GITHUB_TOKEN": "ghp_" + "Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9St0Uv1Wx2",
    "MY_DATABASE_PASSWORD": "correct-horse-battery",
}
IN_RECIPE = {
    "openai": "sk-" + "proj-Zx9Yw8Vu7Ts6Rq5Po4Nm3Lk2",
    "slack": "xoxb-" + "123456789012-abcdefGHIJKL",
    "url": "hunter2hunter2",
    "token": "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.c2lnbmF0dXJlLW9m",
    "named": "s3cr3t-v4lue",
}
SECRETS = {**IN_ENVIRONMENT, **IN_RECIPE}
DESCRIPTION = (
    f"Uses {IN_RECIPE['openai']}, {IN_RECIPE['slack']} and {IN_ENVIRONMENT['WANDB_API_KEY']} from "
    f"https://user:{IN_RECIPE['url']}@example.org/x; password={IN_RECIPE['named']}"
)
INSTRUCTION = f"Log in with {IN_RECIPE['token']} or {IN_ENVIRONMENT['HF_TOKEN']}."


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in IN_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def said_by(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    """Exit code and everything that the command line printed."""
    monkeypatch.setattr(sys, "argv", ["peft-instruct", *arguments])
    try:
        main()
        code = 0
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def found_in(text: str) -> list[str]:
    return [name for name, secret in SECRETS.items() if secret in text]


def found_under(folder: Path) -> list[str]:
    return [
        f"{name} in {path.name}"
        for path in folder.rglob("*")
        if path.is_file()
        for name in found_in(path.read_bytes().decode("utf-8", errors="ignore"))
    ]


@pytest.mark.usefixtures("planted")
def test_no_secret_is_said_or_written_by_any_command(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"# {DESCRIPTION}\nextends: {tiny_recipe}\ndescription: '{DESCRIPTION}'\n"
        f"samples: {{instructions: ['{INSTRUCTION}'], every: end}}\n"
        "training: {max_steps: 2, warmup: 0, save_every: 1, learning_rate: 0.01}\n"
    )
    adapter, diverged = str(tmp_path / "out" / "adapter"), str(tmp_path / "out" / "diverged")
    runs = (
        (0, ("train", str(recipe), "--out", adapter, "--set", f"description={DESCRIPTION}")),
        (1, ("train", str(recipe), "--out", diverged, "--set", "training.learning_rate=1e25",
             "--set", "training.optimizer=sgd", "--set", "training.max_gradient_norm=0")),
        (0, ("merge", adapter, "--out", str(tmp_path / "out" / "merged"))),
        (0, ("evaluate", adapter, "--rows", "1", "--json", "--out", str(tmp_path / "out" / "scores.json"))),
        (0, ("generate", adapter, "Add 3 and 4.", "--max-new-tokens", "2")),
        (0, ("recipe", "show", str(recipe))),
        (0, ("recipe", "explain", str(recipe), "--set", f"description={DESCRIPTION}")),
        (0, ("recipe", "validate", str(recipe))),
        (0, ("doctor", "--json")),
        (2, ("recipe", "validate", str(recipe), "--set", f"desciption={DESCRIPTION}")),
        (2, ("recipe", "validate", str(recipe), "--set", f"training.seed={DESCRIPTION}")),
        (2, ("train", str(recipe), f"--{IN_RECIPE['openai']}")),
        (3, ("train", str(recipe), "--set", f"data.train=https://user:{IN_RECIPE['url']}@example.org/rows.json")),
        (4, ("train", str(recipe), "--set", f"model.base=./{IN_RECIPE['openai']}")),
        (2, ("train", IN_RECIPE["openai"])),
    )  # fmt: skip
    for expected, arguments in runs:
        code, said = said_by(capsys, monkeypatch, *arguments)
        assert code == expected, (arguments, said)
        assert found_in(said) == [], arguments
    assert found_under(tmp_path / "out") == []
    assert "[SECRET]" in (tmp_path / "out" / "adapter" / "report.html").read_text(encoding="utf-8")
    assert not list((tmp_path / "out").rglob("training_args.bin"))


def test_a_password_in_the_address_of_the_hub_is_not_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://me:{IN_RECIPE['url']}@127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    for arguments in (("train", "gpt2_lora"), ("doctor", "--hub")):
        monkeypatch.delenv("HF_HUB_OFFLINE")  # the first command sets it when the hub is away
        _, said = said_by(capsys, monkeypatch, *arguments)
        assert "127.0.0.1:9" in said
        assert found_in(said) == []


@pytest.mark.parametrize("key", ["name", "data.template"])
def test_what_must_be_kept_as_it_is_may_hold_no_secret(key: str, tiny_recipe: Path) -> None:
    secret = IN_ENVIRONMENT["GITHUB_TOKEN"]
    value = secret if key == "name" else f'{{prompt: "{secret} {{instruction}}\\n"}}'
    with pytest.raises(RecipeError, match=f"{key}: holds what looks like a key or a password"):
        load_recipe(str(tiny_recipe), [f"{key}={value}"])


@pytest.mark.usefixtures("planted")
def test_a_saved_recipe_reads_back_and_has_one_hash(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(tiny_recipe), [f"description={DESCRIPTION}"])
    (tmp_path / "saved.yaml").write_text(recipe_yaml(recipe), encoding="utf-8")
    again = load_recipe(str(tmp_path / "saved.yaml"))
    assert found_in(recipe_yaml(recipe)) == []
    assert recipe_hash(again) == recipe_hash(recipe)
    assert again.model_dump(exclude={"description"}) == recipe.model_dump(exclude={"description"})


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("name", SECRETS)
def test_hiding_leaves_the_words_around_a_secret_and_is_done_once(name: str) -> None:
    forms = {
        "url": "ftp://me:{}@example.org/x",
        "named": "the api_key = '{}' of mine",
    }
    text = forms.get(name, "before {}, after")
    hidden = hide_secrets(text.format(SECRETS[name]))
    assert hidden == text.format("[SECRET]")
    assert hide_secrets(hidden) == hidden
    assert hide_in({"a": [text.format(SECRETS[name])], "n": 3}) == {"a": [hidden], "n": 3}


PLAIN = (
    "step 10/100  loss 2.1234  lr 2.0e-04  1,234 tok/s  0:10 left",
    "loss (nats/token): 3.567, token accuracy 0.41; tokens: 123456",
    "max_new_tokens: 128, stop_token=<|endoftext|>, TOKENIZERS_PARALLELISM=true",
    "adapters/quickstart-lora: 0.79 MB of weights, report.html, manifest.json",
    "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "https://example.org:8080/a?page=3&q=token and mail me@example.org",
    "rows.json:17:3: 'output' is null. expected text.",
    "What is the secret of the key to the password?",
)


@pytest.mark.parametrize("text", PLAIN)
def test_plain_words_stay(text: str) -> None:
    assert hide_secrets(text) == text


def test_a_private_key_is_hidden_to_its_end() -> None:
    begin, end = "-----BEGIN RSA " + "PRIVATE KEY-----", "-----END RSA " + "PRIVATE KEY-----"
    assert hide_secrets(f"a {begin}\nMIIE\nxyz\n{end} b") == "a [SECRET] b"
