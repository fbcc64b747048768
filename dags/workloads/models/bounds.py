"""The values that parameters of the shipped models may have, checked before anything is computed, on both engines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..context import StepError


@dataclass(frozen=True, slots=True)
class _Bound:
    """`text` continues the sentence "must be"."""

    text: str
    allows: Callable[[Any], bool]


def _whole(least: int, greatest: int | None = None, *, optional: bool = False) -> _Bound:
    def allows(value: Any) -> bool:
        if value is None:
            return optional
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return is_whole and least <= value and (greatest is None or value <= greatest)

    limits = f"from {least} to {greatest}" if greatest is not None else f"of at least {least}"
    return _Bound(f"a whole number {limits}{' or None' if optional else ''}", allows)


def _number(text: str, allows: Callable[[float], bool]) -> _Bound:
    def is_allowed(value: Any) -> bool:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and allows(value)

    return _Bound(text, is_allowed)


_FLAG = _Bound("True or False", lambda value: isinstance(value, bool))
# That of numpy's generators, which the embedded engine and scikit-learn use.
_SEED = _whole(0, 2**32 - 1, optional=True)
# Spark's is a long.
_SPARK_SEED = _whole(-(2**63), 2**63 - 1, optional=True)
_ANY = _number("a number", lambda value: True)
_NOT_NEGATIVE = _number("a number of at least 0", lambda value: value >= 0)
_POSITIVE = _number("a number greater than 0", lambda value: value > 0)

# RePlay checks SLIM's and the weighting itself, Spark those of ALS and Word2Vec once it fits them.
_BOUNDS: Mapping[str, Mapping[str, _Bound]] = {
    "replay.models.PopRec": {"use_rating": _FLAG},
    "replay.models.ItemKNN": {
        "num_neighbours": _whole(1),
        "use_rating": _FLAG,
        "shrink": _NOT_NEGATIVE,
        "weighting": _Bound("tf_idf, bm25 or None", lambda value: value in ("tf_idf", "bm25", None)),
    },
    "replay.models.ALSWrap": {
        "rank": _whole(1),
        "implicit_prefs": _FLAG,
        "seed": _SEED,
        "num_item_blocks": _whole(1, optional=True),
        "num_query_blocks": _whole(1, optional=True),
    },
    "replay.models.SLIM": {"beta": _NOT_NEGATIVE, "lambda_": _POSITIVE, "seed": _SEED},
    "replay.models.Word2VecRec": {
        "rank": _whole(1),
        "min_count": _whole(0),
        "step_size": _POSITIVE,
        "max_iter": _whole(0),
        "window_size": _whole(1),
        "use_idf": _FLAG,
        "seed": _SPARK_SEED,
        "num_partitions": _whole(1, optional=True),
    },
    "replay.models.UCB": {"exploration_coef": _ANY, "sample": _FLAG, "seed": _SPARK_SEED},
    # LightGBM checks its own.
    "lightgbm": {"k": _whole(1), "num_boost_round": _whole(1)},
}


def check_parameters(model: str, parameters: Mapping[str, Any]) -> None:
    """Raises StepError for a value that the model cannot have. Names and models that are not known here pass."""
    for name, bound in _BOUNDS.get(model, {}).items():
        if name in parameters and not bound.allows(parameters[name]):
            raise StepError(f"parameter {name} of {model} must be {bound.text}, not {parameters[name]!r}")
