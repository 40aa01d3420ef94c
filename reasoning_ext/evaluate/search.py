"""Strategies that draw in rounds, each computed from the completions of those before it: beam search, refinement.

What a round draws is in the store before the next one begins: a killed evaluation goes on in the middle of either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from reasoning_ext import think
from reasoning_ext.engines.base import Completion, Key, SamplingSettings
from reasoning_ext.engines.scored import scored_rows
from reasoning_ext.errors import KeyProblem
from reasoning_ext.evaluate.answers import Answers, Line, Messages, Request
from reasoning_ext.evaluate.scorers import Candidate, Scorer, open_scorer
from reasoning_ext.evaluate.strategy_options import MOST_STEPS, Strategy
from reasoning_ext.runs.outcomes import is_right
from reasoning_ext.runs.read import GREEDY

CRITIQUE = """Here are a question and a draft of its answer. Look for wrong steps, missing steps and wrong arithmetic.

Question:
{question}

Draft:
{draft}

Write a short critique: what is wrong and how to mend it. If all is right, say so."""
REWRITE = """Here are a question, a draft of its answer and a critique of the draft. Answer the question anew.
Keep what is right, mend what is wrong.

Question:
{question}

Draft:
{draft}

Critique:
{critique}"""


class Outcome(NamedTuple):
    """What a strategy made of one problem.

    `right` is between 0 and 1, since equals share, and None where the gold cannot be compared with. `tokens` are all
    that were drawn, `prompt_tokens` those of later rounds' prompts, None where nobody counted them; `rounds` is what
    was right after each.
    """

    right: float | None
    tokens: int
    prompt_tokens: int | None = 0
    rounds: tuple[float | None, ...] = ()


def right(line: Line, decides: str) -> float | None:
    """Tell whether a completion is right, 1 or 0, by the reward that decides; None where it does not judge."""
    value = is_right(line, decides)
    return None if value is None else float(value)


def lowest(score: float | None) -> float:
    """Return a score that can be compared."""
    return -float("inf") if score is None else score


@dataclass(frozen=True)
class Branch:
    """A beginning of a completion: its text, its tokens, the sum of their log-probabilities, the tree that it is of.

    `ended` where nothing goes on from it, `cut` where that is because it had no room.
    """

    text: str = ""
    tokens: int = 0
    logprob: float | None = 0.0
    tree: int = 0
    ended: bool = False
    cut: bool = False
    score: float | None = None

    def rank(self) -> tuple[bool, float]:
        """Return what is higher for the better one."""
        return not self.cut, lowest(self.score)


def beam(strategy: Strategy, answers: Answers, settings: SamplingSettings, decides: str) -> list[Outcome]:
    """Search over the steps of a thought for the completion that a scorer likes best (huggingface/search-and-learn).

    Of `width` candidates for a step the best `keep` are gone on from; with `diverse`, the best of each of `keep` trees
    that never meet (DVTS). Once its thought is closed, a branch goes on to its end. What would have more tokens than
    max_completion_length stays as it was before its last step, and comes behind all that end by themselves.

    Raises:
        KeyProblem: no thought has the text that ends a step.
    """
    o, problems = strategy.options, range(len(answers.table))
    settings, scores = replace(settings, **o.changed()), open_scorer(_scorer(strategy))
    alive = {p: [Branch(tree=tree) for tree in range(o.keep)] for p in problems}
    ended: dict[int, list[Branch]] = {p: [] for p in problems}
    spent, divided = dict.fromkeys(problems, 0), False
    for number in range(MOST_STEPS):
        parents = _expanded(alive, o.width // o.keep, number * o.width)
        if not parents:
            break
        lines = _step(answers, parents, settings, strategy.way, o.step if number + 1 < MOST_STEPS else "")
        divided = divided or any(o.step in _thought(line["completion"]) for line in lines.values())
        made = [_branch(parents[key], line, o.step, settings.max_completion_length) for key, line in lines.items()]
        grouped: dict[int, list[Branch]] = {p: [] for p in problems}
        for (p, _), line, branch in zip(lines, lines.values(), _scored(answers, lines, made, scores), strict=True):
            grouped[p].append(branch)
            spent[p] += line["tokens"]
        for p, branches in grouped.items():
            kept = _kept(branches, o.keep, o.diverse)
            ended[p] += [branch for branch in kept if branch.ended]
            alive[p] = [branch for branch in kept if not branch.ended]
    if not divided:
        found = f"found {o.step!r}, which no thought of {answers.label} has"
        found += ": a beam without a step separator in the thoughts"
        raise KeyProblem((*strategy.place, "step"), found, hint="write the text that ends a step there")
    rights = _judged(answers, [max(ended[p], key=Branch.rank) for p in problems], decides)
    return [Outcome(rights[p], spent[p]) for p in problems]


def _expanded(alive: dict[int, list[Branch]], each: int, first: int) -> dict[Key, Branch]:
    """Return the candidates of a round by key, `each` of every branch; samples are numbered on from `first`."""
    return {
        (p, first + i * each + j): branch
        for p, branches in alive.items()
        for i, branch in enumerate(branches)
        for j in range(each)
    }


def _step(
    answers: Answers, parents: dict[Key, Branch], settings: SamplingSettings, way: str, step: str
) -> dict[Key, Line]:
    """Draw one step more of each branch, or the rest where its thought is closed; return the lines by key."""
    room = settings.max_completion_length - min(branch.tokens for branch in parents.values())
    open_ended = [key for key, branch in parents.items() if not step or think.CLOSE in branch.text]
    requests = []
    for stop, keys in ((step, [key for key in parents if key not in {*open_ended}]), ("", open_ended)):
        begun = {key: parents[key].text for key in keys if parents[key].text}
        drawn = replace(settings, max_completion_length=room, stop=stop)
        requests.append(Request(keys, drawn, way, begun=begun, judged=False))
    return {(line["prompt_index"], line["sample_index"]): line for lines in answers.draw(*requests) for line in lines}


def _thought(text: str) -> str:
    """Return as much of the thought as there is; of a text without tags, all of it."""
    return text.partition(think.CLOSE)[0].replace(think.OPEN, "").lstrip()


def _branch(parent: Branch, line: Line, step: str, most: int) -> Branch:
    """Return a branch with its next step; one that became too long, or was not answered, stays as it was and is cut."""
    text, tokens = line["completion"], parent.tokens + line["tokens"]
    drawn, mean = line["tokens"] - line.get("forced", 0), line.get("logprob")
    whole = None if mean is None or parent.logprob is None else parent.logprob + mean * drawn
    if line.get("error") or tokens > most or (tokens == most and not line["finished"]):
        return replace(parent, ended=True, cut=True)
    goes_on = not line["finished"] and step in text[len(parent.text) :] and think.CLOSE not in parent.text
    cut = not (goes_on or line["finished"])
    return replace(parent, text=text, tokens=tokens, logprob=whole, ended=not goes_on, cut=cut)


def _scored(answers: Answers, keys: Iterable[Key], branches: list[Branch], scores: Any) -> list[Branch]:
    """Score branches; a thought that is still open is closed for its scorer."""
    candidates = []
    for (p, _), one in zip(keys, branches, strict=True):
        text = one.text + think.CLOSE * (think.OPEN in one.text and think.CLOSE not in one.text)
        mean = one.logprob / one.tokens if one.logprob is not None and one.tokens else None
        candidates.append(Candidate(answers.table[p]["prompt"], text, one.tokens, mean))
    return [replace(one, score=score) for one, score in zip(branches, scores(candidates), strict=True)]


def _kept(branches: list[Branch], most: int, diverse: bool) -> list[Branch]:
    """Return the best branches, of equals the first: the best of each tree, or of all."""
    ranked = sorted(branches, key=Branch.rank, reverse=True)
    if not diverse:
        return ranked[:most]
    best: dict[int, Branch] = {}
    for branch in ranked:
        best.setdefault(branch.tree, branch)
    return list(best.values())


def _judged(answers: Answers, chosen: list[Branch], decides: str) -> list[float | None]:
    """Score the completions that were chosen, one a problem, with the recipe's rewards."""
    made = [Completion(p, 0, one.text, [0] * one.tokens, not one.cut, one.tokens) for p, one in enumerate(chosen)]
    return [right(line, decides) for line in scored_rows(made, answers.table, answers.rewards)]


def refine(strategy: Strategy, answers: Answers, settings: SamplingSettings, decides: str) -> list[Outcome]:
    """Have the model criticise its answer and answer anew, round by round (Self-Refine, arXiv:2303.17651).

    The first answer is the greedy one. A new one takes its place always, or where it scores better, as in chapter 5 of
    rasbt/reasoning-from-scratch. Critiques and answers are greedy, where the entry says no temperature.
    """
    o, problems = strategy.options, range(len(answers.table))
    settings, scores = replace(settings, **{"temperature": 0.0} | o.changed()), open_scorer(_scorer(strategy))
    keys = [(p, GREEDY) for p in problems]
    [current] = answers.draw(Request(keys, settings, strategy.way))
    tokens, prompts = [line["tokens"] for line in current], [0] * len(keys)
    rounds, known = [[right(line, decides) for line in current]], True
    for number in range(1, o.rounds + 1):
        critique, answer = strategy.round_ways(number)
        drafts, given = [_bare(line) for line in current], [row["prompt"] for row in answers.table]
        asked = {p: _asked(given[p], CRITIQUE, draft=drafts[p]) for p in problems}
        [critiques] = answers.draw(Request(keys, settings, critique, asked, judged=False))
        asked = {p: _asked(given[p], REWRITE, draft=drafts[p], critique=_said(critiques[p])) for p in problems}
        [answered] = answers.draw(Request(keys, settings, answer, asked))
        for p in problems:
            tokens[p] += critiques[p]["tokens"] + answered[p]["tokens"]
            counts = [line.get("prompt_tokens") for line in (critiques[p], answered[p])]
            known = known and None not in counts
            prompts[p] += sum(count or 0 for count in counts)
        current = answered if o.accept == "always" else _better(answers, current, answered, scores)
        rounds.append([right(line, decides) for line in current])
    return [
        Outcome(rounds[-1][p], tokens[p], prompts[p] if known else None, tuple(each[p] for each in rounds))
        for p in problems
    ]


def _better(answers: Answers, before: list[Line], after: list[Line], scores: Any) -> list[Line]:
    """Return the line of each problem that scores better, of equals the earlier one."""
    old, new = (scores([candidate(answers, line) for line in lines]) for lines in (before, after))
    return [b if lowest(y) > lowest(x) else a for a, b, x, y in zip(before, after, old, new, strict=True)]


def candidate(answers: Answers, line: Line) -> Candidate:
    """Return a line as a scorer sees it."""
    prompt = answers.table[line["prompt_index"]]["prompt"]
    return Candidate(prompt, line["completion"], line["tokens"], line.get("logprob"), not line.get("error"))


def _asked(prompt: Messages, template: str, **texts: str) -> Messages:
    """Return a prompt whose last message is a template with the question."""
    asked = template.format(question=prompt[-1]["content"], **texts)
    return [*prompt[:-1], {**prompt[-1], "content": asked}]


def _bare(line: Line) -> str:
    """Return a completion without its tags, which are the template's."""
    return line["completion"].replace(think.OPEN, "").replace(think.CLOSE, "\n").strip()


def _said(line: Line) -> str:
    """Return what a critique says after its thought, or all of it where the thought does not end."""
    return (think.answer(line["completion"]) or "").strip() or _bare(line)


def _scorer(strategy: Strategy) -> Scorer:
    assert strategy.scorer is not None  # an entry with `by` has one
    return strategy.scorer
