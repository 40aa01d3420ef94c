"""Which completions give the same answer: what maj@k, the vote of `ask` and `min_agreement` count (arXiv:2203.11171)."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from reasoning_ext import think
from reasoning_ext.verifier import alike


def same_answers(completions: Sequence[str]) -> list[list[int]]:
    r"""Group completions by the answers that they give after the thought, however those are written.

    Args:
        completions: N whole completions. Their order does not matter: the commonest texts are compared first.

    Returns:
        the indices of each answer's completions, the commonest answer first; those that give no answer are in no group.

    >>> same_answers(["<think>7</think>3", "1/2", r"<think>a</think>It is \boxed{0.5}.", "<think>never closed"])
    [[1, 2], [0]]
    """
    said = [think.answer(text) for text in completions]
    counts = Counter(text for text in said if text is not None)
    texts = sorted(counts, key=lambda text: (-counts[text], text))
    first = dict(zip(texts, alike(texts), strict=True))
    groups: dict[int, list[int]] = defaultdict(list)
    for i, text in enumerate(said):
        leader = None if text is None else first[text]
        if leader is not None:
            groups[leader].append(i)
    return sorted(groups.values(), key=lambda group: (-len(group), group))


def gives_same(completions: Sequence[str], other: str) -> list[bool]:
    """Tell which completions give the answer of another one, by the verifier, or by equal texts where it reads none.

    >>> gives_same(["<think>7</think>0.5", "2", "<think>never closed"], "1/2"), gives_same(["so  so", "no"], "so so")
    ([True, False, False], [True, False])
    """
    said = [think.answer(text) for text in (other, *completions)]
    groups: Sequence[int | str | None] = alike(said)
    if groups[0] is None:
        groups = [None if text is None else "".join(text.split()) for text in said]
    return [group == groups[0] for group in groups[1:]]
