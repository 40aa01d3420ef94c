"""Formats of problems with a final answer: GSM8K, MATH, SVAMP, NuminaMath, DeepScaleR, DAPO-Math, AIME, Countdown."""

import re
from typing import Any

from reasoning_ext import think
from reasoning_ext.data.values import either, gold, items, kept, said, text

_DAPO_BEFORE = "Solve the following math problem step by step. The last line "
_DAPO_AFTER = '\n\nRemember to put your answer on its own line after "Answer:".'
_WHOLE = re.compile(r"(-?\d+)\.0+")  # 145.0, which a table of floats makes of 145
_AIME_ANSWER = re.compile(r"\$?0*(\d{1,3})(?:\.0+)?(?:\^\{?\\circ\}?)?\$?")


def gsm8k(row: dict[str, Any]) -> dict[str, Any]:
    """openai/gsm8k and openai/grade-school-math: `question`, `answer` = the worked solution, `#### `, the number.

    The solution, without the set's calculator marks `<<48/2=24>>`, is the thought.
    """
    solution, found, number = text(row, "answer").rpartition("####")
    number = number.strip().replace(",", "")
    if not found or not number:
        raise ValueError(f"no '#### ' before a number at the end of the column answer: {row['answer'][-60:]!r}")
    return _worked(text(row, "question"), number, re.sub(r"<<[^<>]*>>", "", solution))


def math(row: dict[str, Any]) -> dict[str, Any]:
    r"""The MATH family (`problem`, `solution`), HuggingFaceH4/MATH-500 and QwenLM/Qwen2.5-Math's files (also `answer`),
    AI-MO/aimo-validation-amc (`problem`, `answer`) and math-ai/amc23 (`question`, `answer`).

    The gold is `answer`, else the solution's last `\boxed{}`. The solution is the thought; a row without one has no
    completion. A float, `27.0`, is the gold `27`.
    """
    problem = text(row, either(row, "problem", "question"))
    given = row.get("answer") if row.get("answer") != "" else None
    solution = text(row, "solution") if given is None else row.get("solution")
    answer = think.last_boxed(solution or "") if given is None else _whole(given)
    if answer in (None, ""):
        raise ValueError(rf"no \boxed{{}} in the column solution: {row['solution'][-60:]!r}")
    return _worked(problem, str(answer), solution) if solution else {"prompt": problem, "answer": answer}


def svamp(row: dict[str, Any]) -> dict[str, Any]:
    """arkilpatel/SVAMP (`Answer` = a float) and ChilleD/SVAMP (`Answer` = text): `Body`, `Question`, `Answer`.

    The prompt is the body, with the full stop that a third of them lack, and the question. There are no completions.
    Kept: `Equation`, `Type`.
    """
    body, question = text(row, "Body").strip(), text(row, "Question").strip()
    asked = f"{body if body.endswith(('.', '?', '!')) else body + '.'} {question}"
    return {"prompt": asked, "answer": _whole(_gold(row, "Answer", row["Answer"])), **kept(row, "Equation", "Type")}


def numina(row: dict[str, Any]) -> dict[str, Any] | None:
    r"""AI-MO/NuminaMath-CoT (`problem`, `solution`, `messages`, `source`) and AI-MO/NuminaMath-1.5 (also `answer`,
    `problem_type`, `question_type`, `problem_is_valid`, `solution_is_valid`).

    The completion is the solution. The gold is `answer`, which is none where it says `proof` or `notfound`; without
    that column, the solution's last `\boxed{}`. Left out are rows whose problem or solution is not marked as valid
    (`Yes`) and rows with an empty solution. Kept: `source`, `problem_type`, `question_type`.
    """
    marks = kept(row, "problem_is_valid", "solution_is_valid").values()
    if any(mark != "Yes" for mark in marks) or not (row["solution"] or "").strip():
        return None
    solution = text(row, "solution")
    return {
        "prompt": text(row, "problem"),
        "completion": said(solution),
        "answer": gold(row["answer"] if "answer" in row else think.last_boxed(solution)),
        **kept(row, "source", "problem_type", "question_type"),
    }


def deepscaler(row: dict[str, Any], *, solutions: bool = False) -> dict[str, Any] | None:
    """agentica-org/DeepScaleR-Preview-Dataset: `problem`, `answer`, `solution`, which is empty in many rows.

    With `solutions` the solution is the completion, and rows without one are left out; else there are no completions.
    """
    made: dict[str, Any] = {"prompt": text(row, "problem"), "answer": _gold(row, "answer", row["answer"])}
    if not solutions:
        return made
    return {**made, "completion": said(text(row, "solution"))} if (row["solution"] or "").strip() else None


def dapo_math(row: dict[str, Any], *, instructions: bool = False) -> dict[str, Any]:
    """BytedTsinghua-SIA/DAPO-Math-17k (`prompt` = messages, `reward_model` with `ground_truth`) and
    open-r1/DAPO-Math-17k-Processed (`prompt` = text, `solution` = the final answer).

    `instructions` keeps the set's fixed sentences around the question, which ask for a last line `Answer: ...`. Kept:
    `data_source`, `ability`. The first set holds every problem about a hundred times.
    """
    prompt: Any = items(row, "prompt") if isinstance(row["prompt"], list) else text(row, "prompt")
    column = either(row, "solution", "reward_model")
    answer = row[column].get("ground_truth") if isinstance(row[column], dict) else row[column]
    if isinstance(prompt, list):
        prompt = [kept(message, "role", "content") for message in prompt]
        if not instructions:
            prompt[-1]["content"] = _bare_question(prompt[-1]["content"])
    return {"prompt": prompt, "answer": _gold(row, column, answer), **kept(row, "data_source", "ability")}


def aime(row: dict[str, Any]) -> dict[str, Any]:
    """AI-MO/aimo-validation-aime, HuggingFaceH4/aime_2024, QwenLM/Qwen2.5-Math's (`problem`, `solution`, `answer`),
    math-ai/aime25 (`problem`, `answer`) and Maxwell-Jia/AIME_2024 (`Problem`, `Solution`, `Answer`).

    The gold is an integer from 0 to 999 without leading zeros. The solution, where there is one, is the completion.
    """
    problem, column = text(row, either(row, "problem", "Problem")), either(row, "answer", "Answer")
    number = _AIME_ANSWER.fullmatch(str(row[column]).strip())
    if number is None:
        raise ValueError(f"the column {column} holds {row[column]!r:.60}, allowed: an integer from 0 to 999")
    solution = either(row, "solution", "Solution")
    completion = {"completion": said(text(row, solution))} if solution in row else {}
    return {"prompt": problem, **completion, "answer": number[1]}


def countdown(row: dict[str, Any]) -> dict[str, Any]:
    r"""Jiayi-Pan/Countdown-Tasks-3to4: `target`, `nums`; the prompt asks for an expression in a `\boxed{}`.

    Kept: `target` and `nums`, for a reward that checks the numbers used; one that compares values alone, as
    `math_answer` does with the column `answer`, also pays for the bare target.
    """
    target, numbers = row["target"], items(row, "nums")
    for column, value in [("target", target), *(("nums", number) for number in numbers)]:
        if type(value) is not int:
            raise ValueError(f"the column {column} holds {value!r:.60}, allowed: integers")
    listed = ", ".join(map(str, numbers))
    prompt = (
        f"Write an arithmetic expression that equals {target}. Use each of the numbers {listed} exactly once, and no other "
        r"numbers. Allowed are +, -, *, / and parentheses. Give the expression in \boxed{}."
    )
    return {"prompt": prompt, "answer": str(target), "target": target, "nums": numbers}


def _worked(question: str, answer: str, solution: str) -> dict[str, Any]:
    completion = think.join(solution, rf"The answer is \boxed{{{answer}}}.")
    return {"prompt": question, "completion": completion, "answer": answer}


def _whole(answer: Any) -> str:
    """Return an answer as text, a whole number without the zeros behind its point."""
    written = str(answer).strip()
    whole = _WHOLE.fullmatch(written)
    return whole[1] if whole else written


def _gold(row: dict[str, Any], column: str, value: Any) -> str:
    """Return a gold that must be there."""
    if (answer := gold(value)) is None:
        raise ValueError(f"the column {column} holds no answer: {row[column]!r:.60}")
    return answer


def _bare_question(content: str) -> str:
    """Return a question without DAPO's sentences before and after it, and any other text as it is."""
    question, after, rest = content.partition("\n\n")[2].rpartition(_DAPO_AFTER)
    return question if content.startswith(_DAPO_BEFORE) and after and not rest.strip() else content
