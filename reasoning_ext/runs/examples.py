"""Problems that models differ on, with their answers, on a page without a script, too."""

from collections import defaultdict
from typing import Any

from reasoning_ext.runs import read
from reasoning_ext.runs.outcomes import is_plain, is_right

GROUPS = 4  # of compared problems


def compared_problems(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group problems by which models' greedy answers are right, where they differ; the first stands for its group.

    Returns:
        a dictionary a group, the largest first: `count` and `of` problems, and `rows`, `[(model, row, right)]`.
    """
    problems: dict[int, dict[str, dict]] = defaultdict(dict)
    for row in answers:
        if row.get("sample_index") == read.GREEDY and is_plain(row):
            problems[row.get("prompt_index", 0)][str(row.get("model"))] = row
    models = list(dict.fromkeys(model for rows in problems.values() for model in rows))
    groups: dict[tuple, list[dict[str, dict]]] = defaultdict(list)
    for _, rows in sorted(problems.items()):
        if len(rows) == len(models):
            groups[tuple(is_right(rows[model]) for model in models)].append(rows)
    of = sum(map(len, groups.values()))
    return [
        {"count": len(group), "of": of, "rows": [(m, group[0][m], r) for m, r in zip(models, rights, strict=True)]}
        for rights, group in sorted(groups.items(), key=lambda item: -len(item[1]))
        if len(set(rights)) > 1
    ][:GROUPS]
