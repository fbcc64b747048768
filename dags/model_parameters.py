"""The parameters of first-level models by name, to refuse those that a model does not have.

Standard library only. The DAG modules check names when they are loaded, and so before a deploy, and the workloads when
they make the model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

# Those of either engine, for the models that the embedded engine has; other models are RePlay's alone.
MODEL_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "replay.models.PopRec": ("use_rating",),
    "replay.models.ItemKNN": ("num_neighbours", "use_rating", "shrink", "weighting"),
    "replay.models.SLIM": ("beta", "lambda_", "seed"),
    "replay.models.ALSWrap": ("rank", "implicit_prefs", "seed", "num_item_blocks", "num_query_blocks"),
}


def unknown_parameters(model: str, names: Iterable[str], known: Collection[str]) -> str:
    """What is wrong with these names of a model's parameters, and which it has; empty if it has all of them."""
    unknown = [name for name in names if name not in known]
    if not unknown:
        return ""
    # Only for this message: DAG modules are loaded often.
    import difflib

    close = {match: None for name in unknown for match in difflib.get_close_matches(name, known, n=1)}
    meant = f" (did you mean {' or '.join(close)}?)" if close else ""
    words = f"parameter{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))}"
    return f"{model} has no {words}{meant}; known: {', '.join(known)}"
