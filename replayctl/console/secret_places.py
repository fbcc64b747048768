"""Finds secrets in a text: values of names of secrets in common notations, headers, addresses, key blocks.

It must be fast enough for logs of gigabytes. Each kind of place has a sign, which every such place contains; patterns
are only matched at a sign, and their length is bounded.
"""

from __future__ import annotations

import binascii
import functools
import re
import string
from collections.abc import Callable, Iterable

from replayctl.console.secret_names import Kind, secret_kind

Span = tuple[int, int]
_NAME_LETTERS = string.ascii_letters + string.digits + "_.-"
_LONGEST_NAME = 80
_LONGEST_VALUE = 4096
_LONGEST_KEY, _LONGEST_KEY_LINES = 1 << 16, 400
# Patterns are compiled where they are first used: an answer without a sign needs none of them.
# A word of a name, the rest of the name, and what stands between a name and its value in one notation or another.
# Words that only begin like one are left at once.
_NAME = (
    r"(?ai:pass(?:w(?:or)?d|phrase|code|(?![ei]))|pwd|cret(?![ai])|credential|creds|token(?!i)|key(?!e|i|w))"
    r"[\w.\-]{0,80}+"
)
_NAME_AND_SEPARATOR = _NAME + (
    r"""(?:(\\{0,3}["'`]?\]?)[ \t]*(:=|=>|->|==?|:(?!:|//)|\||,|>|(?=[ \t"'`]))[ \t]*|(?=</|\s*\n\s*value|-----))"""
)
_OWNERS_OF_KEYS = ("api ", "access ", "secret ", "private ", "account ", "encryption ", "signing ", "fernet ", "auth ")
_SEPARATOR = r"""(\\{0,3}["'`]?\]?)[ \t]*(\||,|>|(?=[ \t"'`]))[ \t]*"""
# Signs that stand between a name and its value in some notations, and between other things elsewhere.
_LOOSE = (None, "", "|", ",", ">")
_OPENING = r"""[bBuUrRfF]{0,2}(\\{0,3}["'`])"""
# A mark within a value ends it where a blank, another mark, or another name with its value follows.
_MARKS = r"""\s"'`&;,)}\]>|\\"""
_PLAIN_VALUE = rf"""(?:[^{_MARKS}]|["'`&;,)}}\]>|\\](?![{_MARKS}]|\Z|[\w.\-]{{1,60}}\\?["']?[=:]))+"""
# What stands where a secret would: nothing, a type, a reference to one, what is wrong with it, a block with more names.
_HARMLESS = (
    r"(?ai:(?:true|false|yes|no|on|off|null|none|nil|nan|undefined|n/a|unset|str|string|int|bytes|bool|optional\[\w+\]"
    r"|expired|invalid|incorrect|wrong|missing|required|rejected|denied|revoked|unknown|unable|failed"
    r"|not|is|was|are|cannot|must|does|has|have"
    r"|\$\{[^}\n]*\}|\{\{[^}\n]*\}\}|\$\([^)\n]*\)|<[\w -]{1,40}>|%[sdr]|%\(\w+\)s|\*{3,}|\*+\(redacted\))"
    r"""(?=[\s"'`&;,)}\]>|\\:.]|\Z)|os\.(?:environ|getenv)\b|self\.\w|token \{|[\{(](?!\w))"""
)
_FEW = r"[+-]?\d{1,5}(?:\.\d+)?(?![\w.])"
_NUMBER_OR_LIST = r"[+-]?\d[\d_.]*(?![\w.])|\["
_PATH = r"(?:file:/{0,3}|[~.$\w{}]{0,30}/)[\w.@{}$-]+(?:/[\w.@{}$-]+)*/?(?![\w+/=])"
_KNOWN_FORM = (
    r"""[ \t]+(?:[a-z]+:?[ \t]+){0,2}["'`(\[]?"""
    r"((?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk[-_]|hf_|AKIA|ASIA|dapi|npm_|pypi-|AIza|ya29\.|SG\.)"
    r"[\w.\-]{12,})"
)
_NAMED_BEFORE = r"""(?i)\b(?:name|key)\\{0,3}["']?\s{0,3}[:=]\s{0,3}\\{0,3}["']?\Z"""
_VALUE_AFTER = r"""(?i)\\{0,3}["']?\s{0,40},?\s{0,40}\\{0,3}["']?value\\{0,3}["']?[ \t]*[:=][ \t]*"""
_ELEMENT_AFTER = r"(?i)</(?:name|key)>\s{0,80}<value>"
_FOR_SOMEBODY = r"[ \t]+for[ \t]+[^\n:]{1,80}:[ \t]+"
_CURL = r"""(?ai:curl)\b[^\n]{0,400}?\s(?:-u|--user)[ =]?["']?[^\s:"']{1,80}:([^\s"']+)"""
_NETRC_BEFORE = r"\blogin\s+\S+\s+\Z"
_BLOCK_SCALAR = r"[|>][+-]?\d?[ \t]*\r?(?=\n)"
_HEADER = r"""(?ai:authorization)(\\{0,3}["']?)\s{0,20}[:=]\s{0,20}(?:(\\{0,3}["'])?([\w-]+)(?:[ \t]{1,20}(?=\S))?)"""
_SCHEMES_OF_ONE_WORD = r"(?ai:basic|bearer|token|negotiate|ntlm|api-?key|jwt|kerberos)\Z"
_SCHEMES_OF_MANY = r"(?ai:digest|aws[\w-]*|hmac[\w-]*|hawk|oauth|signature|sharedkey\w*|sharedaccesssignature)\Z"
_DOCKER_AUTH = r"""auth\\{0,3}["']\s{0,5}:\s{0,5}\\{0,3}["']([A-Za-z0-9+/]{4,}={0,2})"""
_BEARER = r"(?ai:bearer)\s{1,20}([A-Za-z0-9._~+/=-]{8,})"
_COOKIE = r"""(?ai:cookie)(\\{0,3}["']?)[ \t]*[:=][ \t]*(\\{0,3}["'])?([^\s=;"']{1,256}=[^\r\n"']+)"""
_SIGNATURE = r"""(?ai:sig(?:nature)?)\\{0,3}["']?[ \t]*[=:][ \t]*\\{0,3}["']?([A-Za-z0-9%+/=_-]{16,})"""
_JWT = r"(?<!\w)eyJ[\w-]{8,2048}+\.[\w-]{4,}(?:\.[\w-]*)?"
_IDENTIFIED = (
    r"(?ai:identified\s{1,20}(?:with\s{1,20}\S{1,80}\s{1,20})?(?:by|as)\s{1,20}(?:(?:password|values)\s{1,20})?)"
)
_USER_INFO = r"""://([^/\s:@"'<>]{0,256}:)([^/\s"'<>]{1,768}@|(?!\d{1,5}/)[^\s"'<>@]{1,768}@(?=[\w.-]+(?:[:/?]|$)))"""
_USER_ALONE = r"://((?=[a-zA-Z_-]*\d)[A-Za-z0-9_-]{20,256})@"


def secret_places(text: str) -> list[Span]:
    """The places of secrets, in order and apart from each other; none has a line end in it."""
    spans: list[Span] = []
    lowered = _lowered(text)
    for sign, look in _LOOKS:
        place = lowered.find(sign)
        while place >= 0:
            end = place + len(sign)
            for span in look(text, place):
                spans.append(span)
                end = max(end, span[1])
            place = lowered.find(sign, end)
    return _merged(spans) if spans else spans


def is_secret(name: str, value: str) -> bool:
    """Whether the value of a variable, setting or column of that name is a secret."""
    kind = secret_kind(name)
    return kind is not None and value != "" and not _is_no_secret(value, 0, kind)


def _lowered(text: str) -> str:
    """The text with the letters A to Z small; just as long, as it would not be with all letters small."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return merged


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _named(text: str, place: int) -> Iterable[Span]:
    """The value behind a name that has this word in it."""
    if text[place] == "K" and text.startswith("PRIVATE KEY", max(0, place - 8)):
        return _key_block(text, place)
    match = _compiled(_NAME_AND_SEPARATOR).match(text, place)
    if match is None:
        return ()
    window = text[max(0, place - _LONGEST_NAME) : place]
    before = window.rstrip(_NAME_LETTERS)
    head = window[len(before) :]
    if not head and text[place] in "kK":
        # In prose: an API key, the secret key.
        if not before[-12:].lower().endswith(_OWNERS_OF_KEYS):
            return ()
        before, _, owner = before[:-1].rpartition(" ")
        head = f"{owner}_"
    sign = match.group(2)
    end = match.end() if sign is None else match.start(1)
    name = head + text[place:end]
    kind = secret_kind(name) or ("password" if before.endswith(("?", "&")) and name.lower() == "pass" else None)
    if kind is None or before.endswith("nexpected "):
        # A parser's "unexpected token: X" is about a word of a text.
        return ()
    start = _value_start(text, end, before, name, kind) if sign in _LOOSE else match.end()
    if start is None and kind == "password" and (somebody := _compiled(_FOR_SOMEBODY).match(text, end)):
        start = somebody.end()
    if start is not None:
        return _value(text, start, before, name, kind)
    known = _compiled(_KNOWN_FORM).match(text, end)
    return () if known is None else (known.span(1),)


def _value_start(text: str, end: int, before: str, name: str, kind: Kind) -> int | None:
    """Where the value begins of a name that ends here with no sign of assignment; None if it is only spoken of."""
    named = before.rstrip(" \\\"'").endswith((":", "=")) and _compiled(_NAMED_BEFORE).search(before)
    if named and (value := _compiled(_VALUE_AFTER).match(text, end)):
        return value.end()
    separator = _compiled(_SEPARATOR).match(text, end)
    if separator is None:
        element = _compiled(_ELEMENT_AFTER).match(text, end)
        return element.end() if element else None
    close, sign = separator.groups()
    dashed, dotted, after = name.startswith("-"), "." in name, separator.end()
    if sign == ">":
        assigned = before.endswith(("<", ":", 'name="', "name='", 'key="', "key='"))
    elif sign == "|":
        assigned = dotted or kind == "password"
    elif sign == ",":
        assigned = (dashed and bool(close)) or (before.rstrip("\\\"'").endswith("(") and (dotted or bool(close)))
    else:
        at_start = (dotted or text.startswith("\t", end)) and _starts_line(before)
        at_start = at_start or name.startswith(("spark.", "fs.", "hadoop."))
        at_start = at_start or before.endswith(("ENV ", "setenv "))
        quoted = after > separator.end(1) and text.startswith(("'", '"', "`"), after)
        assigned = (dashed and not text.startswith("-", after)) or (
            quoted and (dotted or kind == "password" or name == "SECRET")
        )
        netrc = "login " in before and _compiled(_NETRC_BEFORE).search(before)
        assigned = assigned or at_start or bool(netrc)
    return after if assigned else None


def _starts_line(before: str) -> bool:
    """Whether nothing but blanks, a dash or `export` stands before a name in its line."""
    return before.rpartition("\n")[2].strip(" \t") in ("", "-", "export")


def _value(text: str, start: int, before: str, name: str, kind: Kind) -> Iterable[Span]:
    """The secret that begins here, unless what stands here is none."""
    opening = _compiled(_OPENING).match(text, start)
    begin = opening.end() if opening else start
    if _is_no_secret(text, begin, kind):
        return
    if opening is not None:
        yield begin, _closing(text, begin, opening.group(1))
        return
    block = _compiled(_BLOCK_SCALAR).match(text, start)
    if block is not None:
        yield from _deeper_lines(text, block.end(), before)
        return
    if text.startswith("[", start):
        closing = text.find("]", start, start + _LONGEST_VALUE)
        yield start + 1, min(_line_end(text, start), closing if closing > 0 else len(text))
        return
    plain = _compiled(_PLAIN_VALUE).match(text, start)
    if plain is None or name.lower().endswith(plain.group().lower()):
        # An argument that is named like what is handed over: password=password.
        return
    end = plain.end()
    if kind == "password" and _starts_line(before):
        # A line of properties or YAML, whose value extends to the end.
        end += len(text[end : _line_end(text, end)].rstrip())
    yield start, end


def _is_no_secret(text: str, begin: int, kind: Kind) -> bool:
    if _compiled(_HARMLESS).match(text, begin):
        return True
    if kind == "token":
        return _compiled(_FEW).match(text, begin) is not None
    if kind == "tokens":
        return _compiled(_NUMBER_OR_LIST).match(text, begin) is not None
    if kind in ("credential", "key", "pwd"):
        return _compiled(_PATH).match(text, begin) is not None
    return False


def _closing(text: str, begin: int, quote: str) -> int:
    """Where the quote is closed, in this line; a quote in it is escaped by one more backslash than the opening one."""
    end = _line_end(text, begin)
    place = text.find(quote, begin, end)
    while place > begin:
        backslashes = 0
        while place - backslashes > begin and text[place - backslashes - 1] == "\\":
            backslashes += 1
        if backslashes % 2 == 0:
            break
        place = text.find(quote, place + len(quote), end)
    return place if place >= 0 else end


def _deeper_lines(text: str, end: int, before: str) -> Iterable[Span]:
    """The lines of a YAML block scalar: those that are indented more than the line of its key."""
    own = before.rpartition("\n")[2]
    depth = len(own) - len(own.lstrip())
    while end < len(text):
        begin, end = end + 1, _line_end(text, end + 1)
        line = text[begin:end]
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent <= depth:
            return
        yield begin + indent, end


def _key_block(text: str, place: int) -> Iterable[Span]:
    """What a private key's block has in it, a line at a time, whether its end is seen or not."""
    begin = text.find("-----", place, place + 20) + 5
    if begin < 5 or "-----BEGIN" not in text[max(0, place - 40) : place]:
        return
    stop, ends = len(text), text.find("-----END", begin, begin + _LONGEST_KEY)
    complete = ends >= 0 and text.count("\n", begin, ends) <= _LONGEST_KEY_LINES
    if complete:
        stop = ends
    end = min(_line_end(text, begin), stop)
    quote = _compiled(r"""[^"'`\n]*""").match(text, begin, end)
    if quote is not None and not complete:
        end = quote.end()
    yield begin, end
    for _ in range(_LONGEST_KEY_LINES):
        begin, end = end + 1, min(_line_end(text, end + 1), stop)
        if begin >= stop:
            return
        line = text[begin:end].rstrip()
        if not complete and not _compiled(r"[\s|>+-]*(?:[A-Za-z0-9+/=]*|[A-Z][\w-]+: [\w, -]+)").fullmatch(line):
            return
        yield begin, begin + len(line)


def _authorization(text: str, place: int) -> Iterable[Span]:
    """What a header, or a registry's entry in Docker's configuration, says of who asks."""
    header = _compiled(_HEADER).match(text, place)
    if header is None:
        docker = _compiled(_DOCKER_AUTH).match(text, place)
        if docker is not None and _is_user_and_password(docker.group(1)):
            yield docker.span(1)
        return
    scheme, begin = header.group(3), header.end()
    around = text[max(0, place - 40) : place]
    quote = header.group(2) or next((mark for mark in "\"'" if mark in around.rpartition(" ")[2]), None)
    if _is_no_secret(text, header.start(3), "token"):
        return
    if begin == header.end(3):
        # The scheme in a line of its own, or one word and what sticks to it.
        below = (
            _compiled(r"\s{1,20}(?=\S)").match(text, begin) if _compiled(_SCHEMES_OF_ONE_WORD).match(scheme) else None
        )
        begin = below.end() if below else header.start(3)
    if quote is not None and (header.group(2) or not header.group(1)):
        yield begin, _closing(text, begin, quote)
    elif _compiled(_SCHEMES_OF_MANY).match(scheme) and begin > header.end(3):
        yield begin, begin + len(text[begin : _line_end(text, begin)].rstrip())
    else:
        word = _compiled(r"""[^\s"',;}]+""").match(text, begin)
        if word is not None:
            yield word.span()


def _is_user_and_password(encoded: str) -> bool:
    try:
        return b":" in binascii.a2b_base64(encoded)
    except binascii.Error:
        return False


def _group(pattern: str, number: int = 1) -> Callable[[str, int], Iterable[Span]]:
    """Looks for a pattern that begins at the sign; the secret is one of its groups."""

    def look(text: str, place: int) -> Iterable[Span]:
        match = _compiled(pattern).match(text, place)
        return () if match is None else (match.span(number),)

    return look


def _user_info(text: str, place: int) -> Iterable[Span]:
    if text.find("@", place, place + 1024) < 0:
        return ()
    both = _compiled(_USER_INFO).match(text, place)
    if both is not None:
        # The name too: many services take a token for it.
        return ((both.start(1), both.end(2) - 1),)
    alone = _compiled(_USER_ALONE).match(text, place) if text[place - 1] in "psPS" else None
    return () if alone is None else (alone.span(1),)


def _identified(text: str, place: int) -> Iterable[Span]:
    clause = _compiled(_IDENTIFIED).match(text, place)
    if clause is not None:
        yield from _value(text, clause.end(), "", "identified", "password")


_LOOKS: tuple[tuple[str, Callable[[str, int], Iterable[Span]]], ...] = (
    ("://", _user_info),
    ("pass", _named),
    ("pwd", _named),
    ("cre", _named),
    ("token", _named),
    ("key", _named),
    ("auth", _authorization),
    ("bearer", _group(_BEARER)),
    ("cookie", _group(_COOKIE, 3)),
    ("sig", _group(_SIGNATURE)),
    ("eyj", _group(_JWT, 0)),
    ("identified", _identified),
    ("curl", _group(_CURL)),
)
