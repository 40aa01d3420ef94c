"""Several data sets as one: how many rows of each, in which order, and columns that go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reasoning_ext.data.columns import DataError, columns_of
from reasoning_ext.data.row_options import Source
from reasoning_ext.recipe.entries import TASK
from reasoning_ext.recipe.keys import FROM_DATA

if TYPE_CHECKING:
    from datasets import Dataset

USED = ("prompt", "completion", "chosen", "rejected", "answer", TASK, "chat_template_kwargs")


def mix(parts: list[Dataset], sources: Sequence[Source], seed: int) -> Dataset:
    """Mix data sets as their entries say, and shuffle those that do not stream.

    Args:
        parts: the formatted rows of each entry.
        sources: the entries.
        seed: of the draw and of the order.

    Raises:
        DataError: an entry asks for more rows than there are, or columns of the same name hold different things.
    """
    import datasets

    from_data = sources[0].stage in FROM_DATA
    weights: list[Any] = [source.weight for source in sources]
    wanted: list[Any] = [source.num_rows for source in sources]
    try:
        if not all(hasattr(part, "num_rows") for part in parts):
            return _interleave(parts, weights, wanted, seed, from_data)
        if all(weights):
            total = min(part.num_rows / (w / sum(weights)) for part, w in zip(parts, weights, strict=True))
            shares = [max(1, round(total * w / sum(weights))) for w in weights]
            wanted = [min(share, part.num_rows) for share, part in zip(shares, parts, strict=True)]
        for i, (source, count) in enumerate(zip(sources, wanted, strict=True)):
            if count is not None and count > (there := parts[i].num_rows):
                problem = f"found {count}, allowed: at most the {there} rows that there are"
                raise DataError(source.at("num_rows"), problem)
            if count is not None and count < parts[i].num_rows:
                parts[i] = parts[i].shuffle(seed=seed).select(range(count))
        return datasets.concatenate_datasets(_aligned(parts, from_data)).shuffle(seed=seed)
    except DataError:
        raise
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError("datasets", f"the entries' columns do not go together: {reason}") from error


def _interleave(parts: list[Dataset], weights: list[Any], wanted: list[Any], seed: int, from_data: bool) -> Dataset:
    """Mix data sets of which one streams at least."""
    import datasets

    parts = [part.to_iterable_dataset() if hasattr(part, "num_rows") else part for part in parts]
    parts = [part.take(count) if count else part for part, count in zip(parts, wanted, strict=True)]
    if from_data:
        shown = [{*columns_of(part)} - {"answer"} for part in parts]
        parts = [part.select_columns([n for n in USED if n in has]) for part, has in zip(parts, shown, strict=True)]
    shares = weights if all(weights) else wanted
    chances = [share / sum(shares) for share in shares] if all(shares) else None
    ends = "first_exhausted" if all(weights) else "all_exhausted_without_replacement"
    return datasets.interleave_datasets(parts, probabilities=chances, seed=seed, stopping_strategy=ends)


def _aligned(parts: list[Dataset], from_data: bool) -> list[Dataset]:
    """Bring columns of different kinds together.

    SFT and DPO read no columns but `USED`: others are left out there where they differ, and golds become lists.

    Raises:
        DataError: a column differs.
    """
    for name in dict.fromkeys(name for part in parts for name in part.column_names):
        kinds = {i: part.features[name] for i, part in enumerate(parts) if name in part.column_names}
        if _go_together([parts[i].select_columns([name]).take(1) for i in kinds]):
            continue
        if from_data and name not in USED:
            parts = [part.remove_columns(name) if i in kinds else part for i, part in enumerate(parts)]
        elif from_data and name == "answer":
            parts = [_listed(part) if i in kinds else part for i, part in enumerate(parts)]
        else:
            found = "; ".join(f"{_kind(kind)} in entry {i}" for i, kind in kinds.items())
            rename = "" if name == "chat_template_kwargs" else "; name one of them otherwise with rename_columns"
            raise DataError("datasets", f"the column {name} holds {found}, allowed: one kind{rename}")
    return parts


def _go_together(columns: list[Dataset]) -> bool:
    import datasets

    try:
        datasets.concatenate_datasets(columns)
    except (ValueError, TypeError):
        return False
    return True


def _listed(rows: Dataset) -> Dataset:
    """Make lists of golds that are none."""
    from datasets import Value

    if not isinstance(rows.features["answer"], Value):
        return rows
    golds = [None if gold is None else [str(gold)] for gold in rows["answer"]]
    return rows.remove_columns("answer").add_column("answer", golds)


def _kind(feature: Any) -> str:
    if isinstance(feature, dict):
        return "{" + ", ".join(f"{name}: {_kind(kind)}" for name, kind in feature.items()) + "}"
    return type(feature).__name__.lower() if isinstance(feature, list) else getattr(feature, "dtype", "list")
