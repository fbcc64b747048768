"""Recognises names of secrets, such as `MYSQL_PASSWORD`, `fs.s3a.secret.key` and `refreshToken`.

The words are those of Spark's `spark.redaction.regex`, Hadoop's `hadoop.security.sensitive-config-keys`, Airflow's
masker and the rules of common scanners (gitleaks, detect-secrets). A name is read in parts, because
its last part often says that the value is not a secret: `token_count`, `password_file`, `secretName`.
"""

from __future__ import annotations

import functools
import re
from typing import Literal

Kind = Literal["password", "secret", "token", "tokens", "credential", "key", "pwd"]

_PART = r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+"
# The end of a part, so that words run together count as well: PGPASSWORD, clientsecret, authtoken.
_KINDS: tuple[tuple[str, Kind], ...] = (
    (r"(?:password|passwd|passphrase|passcode)s?$|^pw$", "password"),
    (r"pwd$", "pwd"),
    (r"secrets?$", "secret"),
    (r"token$", "token"),
    (r"tokens$", "tokens"),
    (r"credentials?$|creds?$", "credential"),
)
_BEFORE_KEY = (
    r"(?:api|access|secret|private|priv|account|auth|encryption|decryption|session|sign|signing|signature|master"
    r"|fernet|shared|storage|service|client|ssh|consumer|subscription|deploy|license|rsa|dsa|hmac|jwt|crypto|cipher)"
)
_WITH_ACCOUNTS = (
    r"(?:db|database|key|keystore|store|truststore|user|root|admin|mysql|pg|postgres|redis|smtp|mail|ldap|ssh|login"
    r"|my|ftp|http|https|proxy|rabbit|rabbitmq|mongo|kafka|hive|jdbc|airflow|spark|service|account|auth|basic|web)"
)
# Suffixes of a secret's name whose value describes the secret and is not the secret itself.
_ABOUT = (
    r"count|counts|num|number|numbers|length|len|size|min|max|limit|limits|budget|usage|rate|ratio|index"
    r"|idx|total|file|files|path|paths|dir|directory|folder|location|name|names|ref|refs|url|uri|endpoint"
    r"|host|port|stdin|type|types|kind|class|provider|providers|service|manager|factory|handler|helper"
    r"|backend|store|selector|ttl|expiry|expires|expiration|expire|exp|age|interval|intervals|lifetime"
    r"|timeout|period|secs|sec|seconds|ms|enabled|enable|disabled|required|policy|rule|rules|format|version"
    r"|algorithm|alg|strength|header|field|column|columns|param|parameter|parameters|prefix|suffix|regex"
    r"|pattern|cache|prompt|hint|status|state|error|errors|message|issuer|audience|scope|scopes|created"
    r"|updated|position|level|embedding|embeddings|vector|vectors|mask|masks|identifier|renewer|renewal"
    r"|renew|validity|refreshable"
)
# Tokens of language models and parsers are words of a text.
_OF_TEXT = r"pad|eos|bos|unk|sep|cls|mask|max|min|num|special|n|per|total|first|last|avg|mean|input|output|prompt"
_GLUED_ENDS = r"(?:id|hash|value|data|string|text)$"


@functools.lru_cache(maxsize=4096)
def secret_kind(name: str) -> Kind | None:
    """What kind of secret a variable, key, column or option of that name holds; None when it holds none."""
    parts = [part.lower() for part in re.findall(_PART, name)]
    for index in range(len(parts) - 1, -1, -1):
        kind = _kind_of_part(parts, index)
        if kind is None:
            continue
        rest = parts[index + 1 :]
        if rest and re.fullmatch(_ABOUT, rest[-1]):
            return None
        if kind in ("token", "tokens"):
            before = parts[index - 1] if index else ""
            if re.fullmatch(_OF_TEXT, before) or (kind == "tokens" and "token" in rest):
                return None
            if rest in (["id"], ["ids"]):
                return None
        return kind
    return None


def _kind_of_part(parts: list[str], index: int) -> Kind | None:
    part = parts[index]
    before = parts[index - 1] if index else ""
    if part in ("key", "keys"):
        return "key" if re.fullmatch(_BEFORE_KEY, before) else None
    if part == "pass":
        return "password" if re.fullmatch(_WITH_ACCOUNTS, before) else None
    if re.fullmatch(_WITH_ACCOUNTS + "pass", part):
        return "password"
    stem = re.sub(_GLUED_ENDS, "", part) or part
    if re.search(f"{_BEFORE_KEY}keys?$", stem):
        return "key"
    for pattern, kind in _KINDS:
        if re.search(pattern, stem):
            return kind
    return None
