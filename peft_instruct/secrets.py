"""Keys and passwords, found by their form or in the environment, and hidden in what is said and written about a run."""

from __future__ import annotations

import os
import re
from typing import Any

HIDDEN = "[SECRET]"
SHORTEST = 8
"""Characters of an environment variable that is hidden; a shorter one would take ordinary words with it."""

# Keys that their issuers made to be recognised by their beginning.
KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_\w{22,255}|glpat-[\w-]{20,64}"
    r"|xox[abeoprs]-[\w-]{10,255}|xapp-[\w-]{10,255}|https://hooks\.slack\.com/services/[\w/]{20,100}"
    r"|https://discord(?:app)?\.com/api/webhooks/\d+/[\w-]{20,100}|\d{8,10}:AA[\w-]{32,34}"
    r"|sk-[\w-]{20,255}|[spr]k_(?:live|test)_[0-9A-Za-z]{16,255}|whsec_[A-Za-z0-9]{20,64}|hf_[A-Za-z0-9]{30,64}"
    r"|AIza[\w-]{35}|ya29\.[\w-]{20,512}|dop_v1_[0-9a-f]{64}|SG\.[\w-]{16,64}\.[\w-]{16,64}"
    r"|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,255}"
    r"|eyJ[\w-]{8,2048}\.eyJ[\w-]{8,4096}\.[\w-]{8,2048}"  # JSON Web Token
    r")"
)
PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL
)
PASSWORD_IN_URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,15}://[^\s:/@]{0,64}:(?P<value>[^\s/@[]{1,128})@")
BEARER = re.compile(r"\bBearer\s+(?P<value>[\w.~+/-]{16,2048}=*)")
_NAMED = re.compile(
    r"(?:api[_-]?key|access[_-]?key|(?:access|auth|hub)[_-]?token|passw(?:or)?d|client[_-]?secret|secret[_-]?key"
    r"|[?&](?:token|key|sig|signature|x-amz-[a-z-]{1,40}))[\"']?\s*[:=]\s*[\"']?(?P<value>[^\s\"',;&\[]{6,256})",
    re.IGNORECASE,
)
_FORMS = (PRIVATE_KEY, KEYS, PASSWORD_IN_URL, BEARER, _NAMED)
_ENVIRONMENT = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|(?:API|ACCESS|PRIVATE|SECRET)_?KEY(?:_ID)?)(?:$|_)",
    re.IGNORECASE,
)


def hide_secrets(text: str) -> str:
    """The text with `[SECRET]` in place of keys, passwords in URLs, and values of the environment that are secret."""
    for value in _of_the_environment():
        text = text.replace(value, HIDDEN)
    for form in _FORMS:
        text = form.sub(_hidden, text)
    return text


def hide_in(value: Any) -> Any:
    """The same for every text in lists and mappings, their keys included."""
    if isinstance(value, dict):
        return {hide_in(key): hide_in(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [hide_in(inside) for inside in value]
    return hide_secrets(value) if isinstance(value, str) else value


def _hidden(found: re.Match[str]) -> str:
    if "value" not in found.re.groupindex:
        return HIDDEN
    start, end = (position - found.start() for position in found.span("value"))
    return f"{found[0][:start]}{HIDDEN}{found[0][end:]}"


def _of_the_environment() -> list[str]:
    """Values of variables whose name says that they are secret, the longest first: one may hold another."""
    values = {value for name, value in os.environ.items() if _ENVIRONMENT.search(name) and len(value) >= SHORTEST}
    return sorted(values, key=len, reverse=True)
