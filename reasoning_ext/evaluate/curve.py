"""Accuracy against tokens of thought: what is each part of a thought worth, and how much of it came after its answer?

The thought of every greedy completion is cut at shares of its tokens and at budgets, the closing tag is put behind the
cut, and the model answers from there: the truncation test of arXiv:2307.13702, and the budget forcing of s1,
arXiv:2501.19393. It is cut between tokens of the engine's tokenizer, or between words where the engine keeps that to
itself; a word counts then as many tokens as the completion has a word. What is shorter than a budget, and what has no
thought, is not cut: its stored answer counts. A thought that was never closed is cut like any other.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, NamedTuple

from reasoning_ext import think
from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.evaluate.answers import Answers, Line, Request
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.records import ThinkingCurve
from reasoning_ext.runs.outcomes import is_right
from reasoning_ext.runs.paired import ALPHA, mcnemar
from reasoning_ext.runs.read import GREEDY
from reasoning_ext.runs.tradeoff import curve_rows
from reasoning_ext.scoring.metrics import Z, interval
from reasoning_ext.scoring.votes import gives_same
from reasoning_ext.shown import print_rows

LEVELS = ("hard", "middle", "easy")  # thirds of the problems, by their pass rates
WORDS = re.compile(r"\s*(?:</?think>|(?:(?!</?think>)\S)+)")
ROOM = (2, 16)  # an answer may be so many times as long as the longest stored one, and so many tokens longer


class Point(NamedTuple):
    """Where thoughts are cut: at a share of their tokens, or at a budget of tokens."""

    share: float | None = None
    budget: int | None = None

    @property
    def way(self) -> str:
        """What its lines in `answers.jsonl` are known by."""
        return f"cut {self.budget} tokens" if self.share is None else f"cut {100 * self.share:g}%"


@dataclass(frozen=True)
class Thought:
    """A greedy completion, and where its thought can be cut.

    Attributes:
        line: of `answers.jsonl`.
        start: where the text of the thought begins.
        ends: where each piece of it ends, a token or a word; none where nothing can be cut.
        rate: tokens a piece.
        closing: the closing tag, with the white space around it.
    """

    line: Line
    start: int
    ends: list[int]
    rate: float
    closing: str

    def kept(self, point: Point) -> int:
        """Return how many pieces are left at a point, all of them where nothing is cut."""
        if point.share is not None:
            return math.floor(point.share * len(self.ends))
        return min(len(self.ends), math.floor((point.budget or 0) / self.rate))

    def cut(self, kept: int) -> str:
        """Return the completion's beginning with so many pieces of the thought, and the closing tag behind them."""
        return self.line["completion"][: self.ends[kept - 1] if kept else self.start].rstrip() + self.closing


@dataclass(frozen=True)
class Answered:
    """One problem's answers at P points, the whole thought last."""

    kept: list[float]  # share of the thought
    texts: list[str]  # whole completions
    right: list[bool]
    tokens: list[float]  # of the thought that is kept, the tags and the answer


def thinking_curve(
    answers: Answers, plain: Sequence[Line], cuts: ThinkingCurve, settings: SamplingSettings, decides: str
) -> dict[str, Any]:
    """Cut a model's greedy thoughts, draw the answers that are missing, and return the figures `curve` of `eval.json`.

    Args:
        answers: its store, which what is missing is drawn into.
        plain: its completions by the recipe's own prompts and settings.
        cuts: where thoughts are cut.
        settings: greedy ones; `max_completion_length` is lowered to what the stored answers needed, with `ROOM`.
        decides: the reward that says what is right.

    Returns:
        `points`, each with its `share` or `budget`, `accuracy`, mean `tokens` a problem and `n` problems, the whole
        thought as share 1 last; `overthinking`, see there; `best_thinking_budget`, see `best_budget`; `terciles`, the
        first two again of the hard, middle and easy problems; `thoughts`, how many could be cut. Nothing where no
        problem could be judged at every point.
    """
    plain = sorted(plain, key=lambda line: (line["prompt_index"], line["sample_index"]))
    greedy = [line for line in plain if line["sample_index"] == GREEDY]
    tokenizer = answers.tokenizer
    thoughts = read_thoughts(greedy, tokenizer)
    points = points_of(cuts, max((len(thought.ends) * thought.rate for thought in thoughts), default=0))
    room = replace(settings, max_completion_length=answer_room(thoughts, tokenizer, settings.max_completion_length))
    found = draw_answers(answers, thoughts, points, room, decides)
    if not found:
        return {}
    levels = difficulty([line for line in plain if line["sample_index"] != GREEDY], decides)
    thirds = {level: [one for p, one in found.items() if levels.get(p) == level] for level in LEVELS}
    return {
        **figures(points, [*found.values()]),
        "best_thinking_budget": best_budget(points, [*found.values()]),
        "terciles": {level: figures(points, third) for level, third in thirds.items() if third},
        "thoughts": sum(bool(thought.ends) for thought in thoughts),
    }


def piece_ends(tokenizer: Any, text: str) -> list[int]:
    """Return where the tokens of a text end, or its words where there is no tokenizer that tells."""
    if not getattr(tokenizer, "is_fast", False):
        return [match.end() for match in WORDS.finditer(text)]
    read = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    return [end for _, end in read["offset_mapping"]]


def read_thoughts(lines: Sequence[Line], tokenizer: Any) -> list[Thought]:
    """Find the thoughts of completions, and the layout in which each is closed.

    One that was never closed gets the commonest layout of the others, that of `think.join` where there is none. Where a
    completion has more tags than one thought needs, the thought is what `think.split` says.
    """
    layouts = [closing_of(line["completion"]) for line in lines]
    used = [layout for layout in layouts if layout] or [closing_of(think.join("thought", "answer"))]
    [(commonest, _)] = Counter(used).most_common(1)
    found = []
    for line, layout in zip(lines, layouts, strict=True):
        text = line["completion"]
        ends = piece_ends(tokenizer, text)
        rate = 1.0 if getattr(tokenizer, "is_fast", False) else max(1, line["tokens"]) / max(1, len(ends))
        end = text.rfind(think.CLOSE) if layout else len(text) if think.OPEN in text else 0
        opened = text.find(think.OPEN, 0, end)
        start = opened + len(think.OPEN) if opened >= 0 else 0
        inside = [place for place in ends if start < place <= end]
        found.append(Thought(line, start, inside, rate, layout or commonest))
    return found


def closing_of(text: str) -> str:
    r"""Return a completion's last closing tag with the white space around it, "" where there is none.

    Spaces that belong to the answer's first word are left to the model.

    >>> closing_of("<think>\n3+4=7\n</think>\n\n 7")
    '\n</think>\n\n'
    """
    thought, closed, answer = text.rpartition(think.CLOSE)
    if not closed:
        return ""
    return thought[len(thought.rstrip()) :] + closed + answer[: len(answer) - len(answer.lstrip())].rstrip(" ")


def thinking_cuts(recipe: Recipe) -> ThinkingCurve | None:
    """Return where a recipe wants thoughts cut, if it does."""
    given = recipe.get("thinking_curve")
    return ThinkingCurve(**given) if isinstance(given, dict) else ThinkingCurve() if given else None


def points_of(cuts: ThinkingCurve, longest: float) -> list[Point]:
    """Return the points; where no budgets are given they are 1, 2, 4, ..., below the tokens of the longest thought."""
    powers = [2**k for k in range(math.ceil(longest).bit_length()) if 2**k < longest]
    budgets = powers if cuts.budgets is None else cuts.budgets
    return [Point(share=share) for share in sorted({*cuts.shares})] + [Point(budget=b) for b in sorted({*budgets})]


def answer_room(thoughts: Sequence[Thought], tokenizer: Any, most: int) -> int:
    """Return how many tokens an answer may have: what the longest stored one behind a thought needed, and room."""
    stored = [(thought, think.split(thought.line["completion"])) for thought in thoughts]
    answers = [(one.rate, parts.answer) for one, parts in stored if parts.thought and parts.answer]
    needed = [rate * len(piece_ends(tokenizer, answer)) for rate, answer in answers]
    times, more = ROOM
    return min(most, math.ceil(times * max(needed)) + more) if needed else most


def draw_answers(
    answers: Answers, thoughts: Sequence[Thought], points: Sequence[Point], settings: SamplingSettings, decides: str
) -> dict[int, Answered]:
    """Answer every cut thought, equal cuts of a problem once; return what is judged by number of the problem."""
    begun: dict[str, dict[tuple[int, int], str]] = defaultdict(dict)  # by way
    first: dict[tuple[int, str], str] = {}  # the way that has a cut, by problem and text
    for point in points:
        for thought in thoughts:
            problem, kept = thought.line["prompt_index"], thought.kept(point)
            if kept < len(thought.ends) and first.setdefault((problem, thought.cut(kept)), point.way) == point.way:
                begun[point.way][problem, GREEDY] = thought.cut(kept)
    answers.draw(*(Request([*texts], settings, way, begun=texts) for way, texts in begun.items()))
    found = {}
    for thought in thoughts:
        problem, whole = thought.line["prompt_index"], len(thought.ends)
        counts = [*(thought.kept(point) for point in points), whole]
        cuts = [thought.cut(count) if count < whole else "" for count in counts]
        lines = [answers.lines[first[problem, cut], (problem, GREEDY)] if cut else thought.line for cut in cuts]
        rights = [right for line in lines if (right := is_right(line, decides)) is not None]
        if len(rights) < len(lines):
            continue  # a gold that nobody can compare with
        before = [thought.rate * len(piece_ends(answers.tokenizer, cut)) for cut in cuts]
        shares = [count / whole if whole else 1.0 for count in counts]
        tokens = [line["tokens"] + count for line, count in zip(lines, before, strict=True)]
        found[problem] = Answered(shares, [line["completion"] for line in lines], rights, tokens)
    return found


def figures(points: Sequence[Point], found: Sequence[Answered]) -> dict[str, Any]:
    """Return `points` and `overthinking` of some problems; None where no thought led to a right answer."""
    over = [share for one in found if (share := overthinking(one)) is not None]
    named: list[dict[str, Any]] = [
        {name: value for name, value in point._asdict().items() if value is not None} for point in (*points, Point(1.0))
    ]
    for i, point in enumerate(named):
        point["accuracy"] = interval([float(one.right[i]) for one in found])
        point |= {"tokens": round(fmean(one.tokens[i] for one in found), 2), "n": len(found)}
    return {"points": named, "overthinking": interval(over) if over else None}


def overthinking(one: Answered) -> float | None:
    """Return the share of a thought that came after its right answer was there and stayed; None where it led to none.

    The answer is there from the shortest cut on from which every longer one gives the final answer, by the verifier; so
    the share is 0 where only the whole thought gives it (compare outcome efficiency in arXiv:2412.21187).
    """
    if not one.right[-1] or min(one.kept) == 1.0:
        return None
    there, final = 1.0, gives_same(one.texts, one.texts[-1])
    for kept, same in sorted(zip(one.kept, final, strict=True), key=lambda pair: -pair[0]):
        if not same:
            break
        there = kept
    return 1.0 - there


def best_budget(points: Sequence[Point], found: Sequence[Answered]) -> dict[str, Any] | None:
    """Return the smallest budget that is not told to be worse than the whole thought, nor is any larger one.

    Told by the exact McNemar test at 5 %, two-sided, on the same problems. With few problems little is told apart: the
    `difference` to the whole thought has the interval of Bonett and Price (2012, doi:10.3102/1076998611411915).
    """
    best, n = None, len(found)
    for i, point in reversed([(i, point) for i, point in enumerate(points) if point.budget is not None]):
        gained = sum(one.right[i] and not one.right[-1] for one in found)
        lost = sum(one.right[-1] and not one.right[i] for one in found)
        p = mcnemar(lost, gained)
        if lost > gained and p < ALPHA:
            break
        up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
        half = Z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
        difference = [(gained - lost) / n, max(-1.0, up - down - half), min(1.0, up - down + half)]
        best = {"budget": point.budget, "difference": [round(share, 4) for share in difference], "p": round(p, 4)}
    return best


def difficulty(samples: Sequence[Line], decides: str) -> dict[int, str]:
    """Return the third that each problem is in, by its pass rate over two samples or more; equal rates share one."""
    from scipy.stats import rankdata

    judged: dict[int, list[float]] = defaultdict(list)
    for line in samples:
        if (right := is_right(line, decides)) is not None:
            judged[line["prompt_index"]].append(float(right))
    rates = {problem: fmean(rights) for problem, rights in judged.items() if len(rights) > 1}
    ranks = rankdata([*rates.values()]) if rates else []  # of equal ones the mean
    return {p: LEVELS[min(2, int(3 * (rank - 0.5) / len(rates)))] for p, rank in zip(rates, ranks, strict=True)}


def print_curves(results: dict[str, dict[str, Any]]) -> None:
    """Print the points as rows and the models as columns, where there are any; shares in per cent, with mean tokens."""
    if not (rows := curve_rows(results)):
        return
    models = list(dict.fromkeys(label for cells in rows.values() for label in cells))
    title = "Accuracy with 95 % intervals, and mean tokens, where the thought is cut"
    shown = [(name, *[cells.get(label, "") for label in models]) for name, cells in rows.items()]
    print_rows(title, ["thought", *models], shown)
