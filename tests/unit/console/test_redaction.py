"""Secrets are masked wherever they stand, however long the text around them is."""

import re

from hypothesis import given
from hypothesis import strategies as st

from replayctl.console import redaction


def everywhere(text: str) -> str:
    for _, _, pattern, replacement in redaction._MASKS:
        text = re.sub(pattern, replacement, text)
    return text


PIECES = st.sampled_from(
    [
        *("token", "TOKEN", "=", ": ", " ", "\n", "\r\n", "\n\n", "Bearer", "abcdefgh", "Authorization", "basic", '"'),
        *("https://", "user", "@host", "password", "secret", "api_key", "_", "x" * 50, "İ", "\t", "\x0b", "\u2028"),
    ]
)


@given(st.lists(PIECES, max_size=60).map("".join))
def test_looking_near_the_signs_finds_what_looking_everywhere_finds(text: str) -> None:
    assert redaction.mask(text) == everywhere(text)


@given(st.text(max_size=200))
def test_any_text_is_masked_the_same_way(text: str) -> None:
    assert redaction.mask(text) == everywhere(text)


def test_a_secret_in_a_long_log_is_masked_where_it_is() -> None:
    line = "INFO DAGScheduler: submitting 10 tasks\n"
    text = line * 1000 + "conf: fs.s3a.secret.key token=abc123 and\nAuthorization:\n\n Basic abc\n" + line * 1000
    shown = redaction.clean(text)
    assert "abc" not in shown
    assert shown.count(line) == 2000
    assert shown.startswith(line)
