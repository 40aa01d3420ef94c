r"""How well decontamination and deduplication find what was planted, what they drop for nothing, and how fast they are.

    python benchmarks/decontamination.py [--rows 100000] [--seed 0] [--output]

All problems are made up, in the style of competitions, from 16 templates with phrases that many problems share. The 1,000
clean rows come from the same templates as the 200 evaluation items, with other numbers, names or variables: a row that is
an item by chance is drawn again. Of the items, 50 are planted among the rows in four ways: word by word; case and spacing
changed; LaTeX spelt in other ways; inside a longer prompt. `reworded` plants 50 with one word of prose replaced, which is
beyond the requirement. `one n-gram` is the rule that drops a row for a single shared 8-gram, for comparison. For
deduplication, duplicates are planted in the same ways and as rewordings, and problems that differ in one number or in one
word that turns them ("least", "greatest") must stay. --output writes results/decontamination.json.
"""

import argparse
import json
import multiprocessing
import platform
import random
import re
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "decontamination.json"
AIME = r"can be written as $\frac{m}{n}$, where $m$ and $n$ are relatively prime positive integers. Find $m+n$."
_BLOCKS = r"""
Let ${a}$ and ${b}$ be positive real numbers such that ${a}+{b}={p}$. Find the {least} value of
$\frac{{{q}}}{{{a}}}+\frac{{{r}}}{{{b}}}$.

Let ${a}$, ${b}$ and $c$ be positive real numbers such that ${a}{b}c={p}$. Find the {least} possible value of
${a}^2+{q}{b}^2+{r}c^2$.

Find the number of ordered pairs $({a}, {b})$ of positive integers such that ${q}{a} + {r}{b} = {p}$.

How many ordered pairs of positive integers $({a}, {b})$ with ${a}<{b}$ satisfy the equation
$\frac{{1}}{{{a}}}+\frac{{1}}{{{b}}}=\frac{{1}}{{{p}}}$?

Let $ABC$ be a triangle with $AB={p}$, $BC={q}$ and $CA={r}$. Let $D$ be the foot of the altitude from $A$ to $BC$.
The length of $AD$ {aime}

In triangle $ABC$, the point $D$ lies on side $BC$ such that $BD={p}$ and $DC={q}$. If the angle bisector of angle $A$
meets $BC$ at $E$ and $AB={r}$, find the length of $BE$.

Find the value of ${a}$ in the following equation: $\left({q}{a}-{p}\right)^2 - {r}{a} = {s}$. Express your answer as
a common fraction in lowest terms.

{name} has {p} {things} and buys {q} more {things} at the store every day for {r} days. How many {things} does {name}
have in total now?

A train leaves the station at a speed of {p} miles per hour. {q} hours later, a second train leaves the same station
on a parallel track at a speed of {r} miles per hour. How many hours after the second train leaves will it catch up
with the first one?

What is the {least} positive integer ${a}$ such that ${a}$ leaves a remainder of {q} when divided by {p} and a
remainder of {r} when divided by {s}?

A fair six-sided die is rolled {q} times. The probability that the sum of the numbers rolled is exactly {p} {aime}

The polynomial $P({a})={a}^3-{p}{a}^2+{q}{a}-{r}$ has three roots. Find the sum of the squares of the roots of the
polynomial $P({a})$.

Let $f(x)$ be a function defined for all real numbers such that $f(x+y)=f(x)+f(y)+{p}xy$ for all real numbers $x$ and
$y$. If $f({q})={r}$, find the value of $f({s})$.

Let $S$ be the set of all positive integers less than or equal to ${p}$ that are divisible by {q} but not by {r}. Find
the sum of all the elements of the set $S$.

{name} paints a wall in {p} hours, and {other} paints the same wall in {q} hours. If they work together for {r}
minutes and then {other} leaves, how many minutes does {name} need to finish the wall?

A {box} contains {p} red balls, {q} blue balls and {r} green balls. {name} draws two balls at random without
replacement. The probability that both balls are of the same color {aime}
"""
TEMPLATES = [" ".join(block.split()) for block in _BLOCKS.split("\n\n")]
NAMES = "Tom Ann Maria Wei Lucas Priya Omar Sofia Ken Julia".split()
THINGS = "apples pencils marbles stamps cookies books coins cards".split()
BEFORE = [
    "Solve the following math problem. Think step by step and put your final answer in \\boxed{}.\n\n",
    "You are given a problem from a mathematics competition. Reason carefully before you answer.\nProblem: ",
    "### Instruction\nPlease work out the answer to the question below and explain each step of your work.\n### Question\n",
]
AFTER = [
    "\n\nRemember to put your final answer within \\boxed{}.",
    "\nGive the answer as a single number.",
    "\n### Answer",
]
SYNONYMS = {
    "Find": "Determine", "numbers": "quantities", "positive": "strictly positive", "such": "so", "store": "shop",
    "contains": "holds", "station": "depot", "total": "all", "equation": "relation", "lies": "is", "wall": "fence",
    "roots": "zeros", "rolled": "thrown", "satisfy": "fulfil", "point": "spot", "balls": "marbles", "leaves": "gives",
}  # fmt: skip


def problem(rng):
    """Return one made-up problem."""
    a, b = rng.sample("abkmnpstuvxyz", 2)
    name, other = rng.sample(NAMES, 2)
    p, q, r, s = rng.randrange(12, 300), *(rng.randrange(2, 40) for _ in range(3))
    words = {"least": rng.choice(["minimum", "smallest", "greatest"]), "box": rng.choice(["box", "bag", "jar"])}
    return rng.choice(TEMPLATES).format(
        a=a, b=b, p=p, q=q, r=r, s=s, aime=AIME, name=name, other=other, things=rng.choice(THINGS), **words
    )


def case_and_spacing(text, rng):
    """Change case and white space."""
    text = rng.choice([str.upper, str.lower, str.title])(text) if "\\" not in text else text.lower()
    return re.sub(" ", lambda m: rng.choice([" ", "  ", "\n", "\t ", "\u00a0"]), text).rstrip(".?") + rng.choice(
        ["", " .", "?", " ?"]
    )


def latex(text, rng):
    r"""Spell the formulas in another way: `\(` for `$`, `\dfrac`, thin spaces, `\left(`, braces, spaces around signs."""
    sign = rng.choice([r"\\,\1\\,", r" \1 ", r"\\;\1~"])
    text = re.sub(r"\$[^$]+\$", lambda m: re.sub(r"(?<=[a-z0-9}])([-+=])(?=[a-z0-9\\])", sign, m.group()), text)
    opened = iter(["\\(", "\\)"] * text.count("$"))
    text = re.sub(r"\$", lambda m: next(opened), text) if rng.random() < 0.7 else text.replace("$", "$$")
    text = text.replace(r"\frac", rng.choice([r"\dfrac", r"\tfrac", r"\frac "]))
    text = re.sub(r"\^(\d)", r"^{\1}", text)
    return text.replace("(x+y)", r"\left(x+y\right)").replace(r"\left(", "(").replace(r"\right)", r" )")


def embedded(text, rng):
    """Put instructions before and after, and change the rest in one of the other ways or not."""
    return rng.choice(BEFORE) + rng.choice([lambda t, rng: t, case_and_spacing, latex])(text, rng) + rng.choice(AFTER)


def reworded(text, rng):
    """Replace one word of prose, everywhere."""
    there = [word for word in SYNONYMS if re.search(rf"\b{word}\b", text)]
    word = rng.choice(there) if there else "the"
    return re.sub(rf"\b{word}\b", SYNONYMS.get(word, "this"), text)


def other_number(text, rng):
    """Change one number: another problem."""
    place = rng.choice(list(re.finditer(r"\d+", text)))
    return text[: place.start()] + str(int(place.group()) + rng.randrange(1, 9)) + text[place.end() :]


WAYS = {"verbatim": lambda text, rng: text, "case and spacing": case_and_spacing, "latex": latex, "embedded": embedded}


def fresh(rng, count, taken):
    """Return problems that are not taken and differ from each other."""
    made = {}
    while len(made) < count:
        text = problem(rng)
        if text not in taken:
            made[text] = None
    return list(made)


def dataset(texts):
    """Return rows with these user texts."""
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in texts]})


def decontamination(seed, count):
    """Measure what is found of 50, what is dropped of 1,000 clean rows, and the speed on `count` rows."""
    from reasoning_ext.data.contamination import decontaminate, split_words

    rng = random.Random(seed)
    items = fresh(rng, 200, ())
    clean = fresh(rng, 1000, set(items))
    ways = list(WAYS.items())
    planted = [(way[0], way[1](items[i], rng)) for i, way in ((i, ways[i % 4]) for i in range(50))]
    beyond = [reworded(item, rng) for item in items[:50]]
    _, removed = decontaminate(dataset([*clean, *(text for _, text in planted), *beyond]), {"made up": items})
    hits = {record["row"]: record["item"] for record in removed}
    found = {way: [0, 0] for way in WAYS}
    for i, (way, _) in enumerate(planted):
        found[way][0] += hits.get(1000 + i) == i
        found[way][1] += 1
    item_words = [split_words(item) for item in items]
    ngrams = {tuple(w[i : i + 8]) for w in item_words for i in range(len(w) - 7)}
    words = map(split_words, clean)
    one = sum(any(tuple(w[i : i + 8]) in ngrams for i in range(len(w) - 7)) for w in words)
    rows = dataset([problem(rng) for _ in range(count)])
    start = time.perf_counter()
    decontaminate(rows, {"made up": items})
    taken = time.perf_counter() - start
    return {
        "found_of_50": sum(hit for hit, _ in found.values()),
        "found": {way: f"{hit} of {of}" for way, (hit, of) in found.items()},
        "dropped_of_1000_clean": sum(row < 1000 for row in hits),
        "dropped_of_1000_clean_by_one_ngram": one,
        "reworded_found_of_50": sum(row >= 1050 for row in hits),
        "rows_per_minute": round(60 * count / taken),
    }


def deduplication(seed, count, how):
    """Measure recall on planted duplicates, precision, what is kept that must be, and the speed on `count` rows."""
    from reasoning_ext.data.duplicates import deduplicate

    rng = random.Random(seed + 1)
    originals = fresh(rng, 2000, ())
    planted = {way: [change(text, rng) for text in originals[:200]] for way, change in list(WAYS.items())[:3]}
    planted["reworded"] = [reworded(text, rng) for text in originals[200:400]]
    variants = [other_number(text, rng) for text in originals[400:1400]]
    turned = [re.sub("minimum|smallest", "greatest", t) for t in originals if re.search("minimum|smallest", t)]
    taken = set(originals)
    variants, turned = ([text for text in dict.fromkeys(some) if text not in taken] for some in (variants, turned))
    texts = [*originals, *(text for some in planted.values() for text in some), *variants, *turned]
    _, removed = deduplicate(dataset(texts), how)
    dropped = {record["row"] for record in removed}
    place, recall = len(originals), {}
    for way, some in planted.items():
        recall[way] = f"{sum(i in dropped for i in range(place, place + len(some)))} of {len(some)}"
        place += len(some)
    kept = {
        "originals": (0, 2000),
        "other number": (place, len(variants)),
        "turned": (place + len(variants), len(turned)),
    }
    rows = dataset([problem(rng) for _ in range(count)])
    start = time.perf_counter()
    deduplicate(rows, how)
    seconds = time.perf_counter() - start
    wrong = {name: f"{sum(i in dropped for i in range(at, at + of))} of {of}" for name, (at, of) in kept.items()}
    return {"found": recall, "dropped_wrongly": wrong, "rows_per_minute": round(60 * count / seconds)}


def main():
    """Measure everything, print it, and write the result file where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows that speed is measured on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", nargs="?", const=RESULT, type=Path, help="write a result file; default: results/")
    args = parser.parse_args()
    results = {"decontaminate": decontamination(args.seed, args.rows)}
    results |= {f"deduplicate {how}": deduplication(args.seed, args.rows, how) for how in ("exact", "near")}
    for name, figures in results.items():
        print(name)
        for key, value in figures.items():
            text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else f"{value:,}"
            print(f"  {key:36s} {text}")
    if args.output:
        command = f"python benchmarks/decontamination.py --rows {args.rows} --seed {args.seed} --output"
        header = {"command": command, "date": str(date.today()), "python": platform.python_version()}
        header |= {"cores": multiprocessing.cpu_count()}
        header |= {"versions": {name: version(name) for name in ("datasets", "datasketch", "numpy")}}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps({**header, **results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
