"""Two models on the same problems: which is better, how sure that is, by how much, and how many problems would tell.

Where two models are equally good, what a problem says for one of them it could as well have said for the other. So p
is the share of random flips of the problems' signs that differ as much: for answers that are right or wrong this is
McNemar's exact test (1947), a binomial; for shares of several answers 9,999 flips are drawn. The interval of the
difference is the paired bootstrap's over problems, expanded for few of them (Hesterberg 2015, arXiv:1411.5279).

Several seeds of one recipe are not so many more problems. A problem counts once, by its mean over seeds, and what
seeds differ by is added to every draw: Student's t with one degree of freedom fewer than seeds, times the standard
error of the mean over seeds. What is chance in an answer is in both parts: false alarms are below 5 % where seeds do
not matter, and 5 % where they do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from scipy import stats

ALPHA, POWER = 0.05, 0.8
DRAWS, BATCH = 9_999, 500  # of which so many are in the memory at once
Array = numpy.ndarray[Any, Any]


@dataclass(frozen=True)
class Paired:
    """A comparison of two models on the same problems.

    Attributes:
        first, second: the share of right answers of each.
        interval: 95 % interval of second - first.
        p: how often two equally good models differ as much.
        both, only_first, only_second, none: pairs of outcomes by who is right; of shares, by whose is higher.
        seeds, problems: how many there are of each.
        binary: whether all outcomes are right or wrong.
        discordance: mean square of a problem's difference, which is the share of problems that only one solves.
    """

    first: float
    second: float
    interval: tuple[float, float]
    p: float
    both: int
    only_first: int
    only_second: int
    none: int
    seeds: int
    problems: int
    binary: bool
    discordance: float

    @property
    def exact(self) -> bool:
        """Whether p is McNemar's, and none of random flips."""
        return self.binary and self.seeds == 1

    @property
    def difference(self) -> float:
        """By how much the second is better."""
        return self.second - self.first

    def problems_for(self, difference: float) -> int:
        """Return how many problems tell such a difference apart, if models disagree as much as these do."""
        return problems_needed(difference, self.discordance)


def paired(first: Array, second: Array) -> Paired:
    """Compare two models' outcomes, each `(S, P)`: seeds and problems, between 0 and 1."""
    d_SP = second - first
    binary = bool(numpy.isin(first, (0, 1)).all() and numpy.isin(second, (0, 1)).all())
    only_first, only_second = int((d_SP < 0).sum()), int((d_SP > 0).sum())
    return Paired(
        first=float(first.mean()),
        second=float(second.mean()),
        interval=bootstrap_interval(d_SP),
        p=mcnemar(only_first, only_second) if binary and len(d_SP) == 1 else float(flip_test(d_SP)),
        both=int((first * second == 1).sum()),
        only_first=only_first,
        only_second=only_second,
        none=int((first + second == 0).sum()),
        seeds=d_SP.shape[0],
        problems=d_SP.shape[1],
        binary=binary,
        discordance=float((d_SP.mean(0) ** 2).mean()),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return McNemar's exact p, of problems that one of two models alone solves.

    >>> mcnemar(0, 0), mcnemar(1, 7)
    (1.0, 0.0703125)
    """
    return float(stats.binomtest(only_second, only_first + only_second or 1).pvalue)


def flip_test(d_SP: Array, draws: int = DRAWS) -> Any:
    """Return the p of differences `(..., S, P)`: how often they are as far from 0 with random signs, one a problem."""
    rng = numpy.random.default_rng(0)
    d_P = d_SP.mean(-2)
    null: Any = 0.0
    for part in numpy.split(d_P, range(BATCH, d_P.shape[-1], BATCH), axis=-1):
        null = null + part @ rng.choice(numpy.array([-1.0, 1.0]), (part.shape[-1], draws)) / d_P.shape[-1]
    null = null + _seeds_part(d_SP, draws, rng)
    as_far = numpy.abs(null) >= numpy.abs(d_P.mean(-1, keepdims=True)) - 1e-12
    return (1 + as_far.sum(-1)) / (draws + 1)


def bootstrap_interval(d_SP: Array, draws: int = DRAWS) -> tuple[float, float]:
    """Return the 95 % interval of the mean of differences `(S, P)`, from problems drawn with replacement."""
    d_P, rng = d_SP.mean(0), numpy.random.default_rng(0)
    mean, problems = float(d_P.mean()), len(d_P)
    if problems < 2:
        return -1.0, 1.0
    found = stats.bootstrap((d_P,), numpy.mean, n_resamples=draws, batch=BATCH, method="percentile", rng=rng)
    few = (
        stats.t.ppf(1 - ALPHA / 2, problems - 1) / stats.norm.ppf(1 - ALPHA / 2) * math.sqrt(problems / (problems - 1))
    )
    drawn = mean + few * (found.bootstrap_distribution - mean) + _seeds_part(d_SP, draws, rng)
    low, high = numpy.quantile(drawn, (ALPHA / 2, 1 - ALPHA / 2))
    return max(-1.0, float(low)), min(1.0, float(high))


def _seeds_part(d_SP: Array, draws: int, rng: numpy.random.Generator) -> Any:
    """Draw what seeds add to a mean over them, `(..., draws)`; 0 for one seed, which says nothing of others."""
    seeds = d_SP.shape[-2]
    if seeds < 2:
        return 0.0
    error = d_SP.mean(-1).std(-1, ddof=1, keepdims=True) / math.sqrt(seeds)
    return error * stats.t.rvs(seeds - 1, size=draws, random_state=rng)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values that may be held against one level together (Holm 1979).

    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = adjusted[i] = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
    return adjusted


def problems_needed(difference: float, discordance: float) -> int:
    """Return how many problems tell a difference at 5 %, four times of five, by the share that one model alone solves.

    After Connor 1987, for McNemar's test, and one pair for its continuity; of shares, `discordance` is the mean square
    of a problem's difference.

    >>> problems_needed(0.02, 0.1), problems_needed(0.02, 0.4)
    (2010, 7897)
    """
    apart = max(discordance, difference)  # it cannot be smaller than what is asked for
    alpha, power = stats.norm.ppf(1 - ALPHA / 2), stats.norm.ppf(POWER)
    root = alpha * math.sqrt(apart) + power * math.sqrt(apart - difference**2)
    return math.ceil((root / difference) ** 2 + 1 / difference)


def verdict(found: Paired, p: float) -> str:
    """Say `better` or `worse`, of the second model, or "" where the two are not told apart; `p` may be Holm's."""
    return "" if p >= ALPHA else "better" if found.difference > 0 else "worse"


def p_text(p: float) -> str:
    """Write a p-value: two digits that count, and none that 9,999 draws cannot have.

    >>> p_text(0.0437), p_text(0.00001), p_text(1.0)
    ('p = 0.044', 'p < 0.001', 'p = 1')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def earliest_as_good(outcomes: Mapping[str, Array]) -> tuple[str, str]:
    """Choose among checkpoints in the order of their steps: the first not told apart from the highest, and the highest.

    The highest of many is partly so by luck, and costs steps; Holm over all before it. Outcomes are `(S, P)` each.
    """
    highest = max(outcomes, key=lambda label: float(outcomes[label].mean()))  # of equal ones the first
    earlier = [*outcomes][: [*outcomes].index(highest)]
    ps = holm([paired(outcomes[label], outcomes[highest]).p for label in earlier])
    return next((label for label, p in zip(earlier, ps, strict=True) if p >= ALPHA), highest), highest
