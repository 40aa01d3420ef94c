"""Several data sets as one: how many rows of each, in which order, and columns that go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reasoning_ext.data.calls import CHATS, TOOLS
from reasoning_ext.data.columns import DataError, columns_of
from reasoning_ext.data.row_options import Source
from reasoning_ext.errors import one_line
from reasoning_ext.recipe.entries import TASK
from reasoning_ext.recipe.keys import FROM_DATA

if TYPE_CHECKING:
    from datasets import Dataset

USED = (*CHATS, TASK, "chat_template_kwargs", TOOLS)


def mix(parts: list[Dataset], sources: Sequence[Source], seed: int) -> Dataset:
    """Mix the formatted rows of entries as `sources` say, and shuffle those that do not stream.

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
        for i, count in enumerate(wanted):
            there = parts[i].num_rows
            if count is not None and count > there:
                raise DataError(sources[i].at("num_rows"), f"found {count}", f"at most the {there} rows that there are")
            if count is not None and count < there:
                parts[i] = parts[i].shuffle(seed=seed).select(range(count))
        parts = _with_fields(parts)
        return datasets.concatenate_datasets(_aligned(parts, from_data)).shuffle(seed=seed)
    except DataError:
        raise
    except (ValueError, TypeError) as error:
        raise DataError("datasets", f"the entries' columns do not go together: {one_line(error)}") from error


def _interleave(parts: list[Dataset], weights: list[Any], wanted: list[Any], seed: int, from_data: bool) -> Dataset:
    """Mix data sets of which one streams at least."""
    import datasets

    parts = [part.to_iterable_dataset() if hasattr(part, "num_rows") else part for part in parts]
    parts = [part.take(count) if count else part for part, count in zip(parts, wanted, strict=True)]
    if from_data:
        parts = [part.select_columns([name for name in USED if name in columns_of(part)]) for part in parts]
    shares = weights if all(weights) else wanted
    chances = [share / sum(shares) for share in shares] if all(shares) else None
    ends = "first_exhausted" if all(weights) else "all_exhausted_without_replacement"
    return datasets.interleave_datasets(parts, probabilities=chances, seed=seed, stopping_strategy=ends)


def _with_fields(parts: list[Dataset]) -> list[Dataset]:
    """Give messages the fields that those of other entries have, calls of tools above all; they are null."""
    import pyarrow as pa
    from datasets import Features

    for name in CHATS:
        having = [i for i, part in enumerate(parts) if name in part.column_names]
        schemas = [pa.schema([parts[i].features.arrow_schema.field(name)]) for i in having]
        if len({str(schema) for schema in schemas}) < 2:
            continue
        try:
            both = pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowTypeError:
            continue  # refused below
        kind = Features.from_arrow_schema(pa.schema([both.field(name).remove_metadata()]))[name]
        for i in having:
            parts[i] = parts[i].cast_column(name, kind)
    return parts


def _aligned(parts: list[Dataset], from_data: bool) -> list[Dataset]:
    """Refuse columns of different kinds; of SFT and DPO golds become lists, and what is not trained on is left out.

    Raises:
        DataError: a column differs.
    """
    import datasets

    for name in dict.fromkeys(name for part in parts for name in part.column_names):
        having = [i for i, part in enumerate(parts) if name in part.column_names]
        try:
            datasets.concatenate_datasets([parts[i].select_columns([name]).take(1) for i in having])
        except (ValueError, TypeError) as error:
            if from_data and name == "answer":  # `trace_filters: {correct: true}` reads them
                for i in having:
                    golds = [g if g is None or isinstance(g, list) else [str(g)] for g in parts[i][name]]
                    parts[i] = parts[i].remove_columns(name).add_column(name, golds)
                continue
            if not from_data or name in USED:
                kinds = [getattr(parts[i].features[name], "dtype", "list") for i in having]
                found = "; ".join(f"{kind} in entry {i}" for kind, i in zip(kinds, having, strict=True))
                hint = "name one of them otherwise with rename_columns"
                raise DataError("datasets", f"the column {name} holds {found}", "one kind", hint) from error
            for i in having:
                parts[i] = parts[i].remove_columns(name)
    return parts
