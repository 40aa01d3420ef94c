"""A format of one's own: a row of problems.csv -> what is trained on. Named in a recipe as `./worked.py:worked`."""


def worked(row: dict) -> dict | None:
    """Put the working into the thought and the result behind it; a row without a result is left out.

    >>> worked({"Question": "7+5*3", "Reasoning": "7+5=12;2*3=6", "Result": "6"})
    {'prompt': '7+5*3', 'completion': '<think>7+5=12;2*3=6</think>6', 'answer': '6'}
    """
    if not row["Result"]:
        return None
    whole = f"<think>{row['Reasoning'] or ''}</think>{row['Result']}"
    return {"prompt": row["Question"], "completion": whole, "answer": row["Result"]}
