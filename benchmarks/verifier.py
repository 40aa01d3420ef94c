"""How fast and how right the verifier is, side by side with TRL's accuracy_reward and plain math-verify in one run.

    python benchmarks/verifier.py [--prompts 64] [--batches 20] [--limit 60] [--load 0]

Batches are made as GRPO makes them: P prompts, 8 completions each, a thought and a boxed answer, half of them right, the
wrong ones drawn from a few, so that equal answers repeat. Four sets: `math` (integers, fractions, expressions, tuples),
`arithmetic`, whose answers have to be worked out to be compared, `integers`, and `hostile`, which is `math` with 5 % junk and
1 % bombs. Every method runs in a process of its own; another's that passes the time limit is stopped, and the table says after
how many completions. `lost` are right answers not paid, `paid` wrong ones that were, by how they were made. `--load N` keeps N
other processes busy. `full path` counts the verdicts that ours reaches without
algebra and that differ from those of math-verify's parser and sympy's exact comparison.
Writes results/verifier.json, or results/verifier_loaded.json.
"""

import argparse
import json
import math
import multiprocessing
import platform
import random
import statistics
import time
from datetime import date
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
G = 8
THOUGHT = "<think>\nLet me work it out. First {a} + {b} = {c}, then we look at it again and simplify.\n</think>\n\n"
BOMBS = [r"2^{2^{2^{59}}}", r"\binom{900000}{400000}", r"9999999!", r"3^{9^{9^{9}}}"]
JUNK = ["\\boxed{" * 200, "$$" + "x" * 3000, "I do not know", r"\frac{1}{", "((((((((", r"\boxed{\foo{3}}"]


def integer(rng):
    """Return a gold, ways to write it, and wrong answers."""
    n = rng.randrange(1, 5000)
    return str(n), [*[str(n)] * 17, f"{n:,}", f"{n}.0", rf"{n}\text{{ apples}}"], [str(n + 1), str(-n), str(n * 10)]


def fraction(rng):
    """A fraction in lowest terms or not."""
    a, b = rng.sample(range(2, 40), 2)
    right = [rf"\frac{{{a}}}{{{b}}}", rf"\dfrac{{{a}}}{{{b}}}", f"{a}/{b}", rf"\frac{{{2 * a}}}{{{2 * b}}}"]
    return rf"\frac{{{a}}}{{{b}}}", right, [rf"\frac{{{a + 1}}}{{{b}}}", rf"\frac{{{b}}}{{{a}}}", str(a)]


def expression(rng):
    """A root, a polynomial, a multiple of pi, a point, or an interval."""
    a, b = rng.sample(range(2, 30), 2)
    return rng.choice(
        [
            (rf"{a}\sqrt{{{b}}}", [rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{b}}}\cdot {a}"], [rf"{b}\sqrt{{{a + 1}}}", str(a)]),
            (f"x^2+{a}x+{b}", [f"x^2 + {a}x + {b}", f"{b} + {a}x + x^2"], [f"x^2-{a}x+{b}", f"x^2+{a}x"]),
            (
                rf"\frac{{{a}\pi}}{{{b}}}",
                [rf"\frac{{{a}\pi}}{{{b}}}", rf"\frac{{{a}}}{{{b}}}\pi"],
                [rf"{a}\pi", r"\pi"],
            ),
            (f"({a}, {b})", [f"({a},{b})", rf"\left({a}, {b}\right)"], [f"({b + 1},{a})", f"({a},{b},1)"]),
            (f"[{a}, {a + b})", [f"[{a},{a + b})"], [f"({a},{a + b})", f"[{a},{a + b}]"]),
        ]
    )


def latex(value):
    """Write a fraction in lowest terms."""
    return str(value.numerator) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def worked(rng):
    """Answers that have to be worked out: sums, powers, binomials, large integers, roots, logarithms, polynomials."""
    a, b = rng.sample(range(2, 12), 2)
    c, d = rng.sample(range(2, 9), 2)
    n = rng.randrange(2, 5)
    half, other = Fraction(a, b), Fraction(c, d)
    return rng.choice(
        [
            (
                latex(half + other),
                [
                    rf"\frac{{{a}}}{{{b}}}+\frac{{{c}}}{{{d}}}",
                    rf"\frac{{{c}}}{{{d}}}+\frac{{{a}}}{{{b}}}",
                    latex(half + other),
                ],
                [rf"\frac{{{a}}}{{{b}}}-\frac{{{c}}}{{{d}}}", rf"\frac{{{a + c}}}{{{b + d}}}", rf"\frac{{{a}}}{{{b}}}"],
            ),
            (
                latex(half**n),
                [rf"\left(\frac{{{a}}}{{{b}}}\right)^{{{n}}}", rf"\frac{{{a}^{n}}}{{{b}^{n}}}", latex(half**n)],
                [rf"\left(\frac{{{a}}}{{{b}}}\right)^{{{n + 1}}}", rf"\frac{{{a}^{n}}}{{{b}}}", latex(half)],
            ),
            (
                latex(Fraction(math.comb(a + n, n), math.comb(b + a, a))),
                [
                    rf"\frac{{\binom{{{a + n}}}{{{n}}}}}{{\binom{{{b + a}}}{{{a}}}}}",
                    latex(Fraction(math.comb(a + n, n), math.comb(b + a, a))),
                ],
                [rf"\frac{{\binom{{{a + n}}}{{{n}}}}}{{\binom{{{b + a}}}{{{a}}}+1}}", rf"\binom{{{a + n}}}{{{n}}}"],
            ),
            (
                f"2^{{{40 + a}}}-1",
                [str(2 ** (40 + a) - 1), f"2^{{{40 + a}}}-1"],
                [f"2^{{{40 + a}}}", str(2 ** (40 + a)), f"2^{{{40 + a}}}+1"],
            ),
            (
                f"2^{{{100 + a}}}",
                [rf"4 \cdot 2^{{{98 + a}}}", f"2^{{{100 + a}}}"],
                [f"2^{{{100 + a}}}+1", f"2^{{{100 + a}}}-1", f"2^{{{101 + a}}}"],
            ),
            (
                rf"\frac{{{a}+\sqrt{{{c}}}}}{{{d}}}, \frac{{{a}-\sqrt{{{c}}}}}{{{d}}}",
                [
                    rf"\frac{{{a}\pm\sqrt{{{c}}}}}{{{d}}}",
                    rf"\frac{{{a}-\sqrt{{{c}}}}}{{{d}}}, \frac{{{a}+\sqrt{{{c}}}}}{{{d}}}",
                ],
                [rf"\frac{{{a}+\sqrt{{{c}}}}}{{{d}}}", rf"\frac{{{a}\pm\sqrt{{{c + 1}}}}}{{{d}}}"],
            ),
            (
                rf"{a}\sqrt{{{c}}}",
                [rf"\sqrt{{{a * a * c}}}", rf"{a}\sqrt{{{c}}}"],
                [rf"\sqrt{{{a * a * c + 1}}}", rf"\sqrt{{{a * c}}}"],
            ),
            (str(n), [rf"\log_{{{a}}} {a**n}", str(n)], [rf"\log_{{{a}}} {a ** (n + 1)}", str(n + 1)]),
            (
                f"x^2+{a + b}x+{a * b}",
                [f"(x+{a})(x+{b})", f"(x+{b})(x+{a})", f"x^2+{a + b}x+{a * b}"],
                [f"(x-{a})(x+{b})", f"(x+{a})^2", f"x^2+{a + b}x"],
            ),
            (
                str(10**-n) if n < 4 else "0.0001",
                [f"10^{{-{n}}}", rf"\frac{{1}}{{{10**n}}}"],
                [f"10^{{-{n + 1}}}", f"10^{n}"],
            ),
        ]
    )


KINDS = {
    "integers": lambda rng: integer(rng),
    "arithmetic": worked,
    "math": lambda rng: rng.choices([integer, fraction, expression], [5, 2, 3])[0](rng),
}
KINDS["hostile"] = KINDS["math"]


def make_batches(kind, prompts, batches):
    """Return batches of (golds, completions, right) with P x G entries each; right is None for junk and bombs."""
    rng = random.Random(f"{kind}")
    made = []
    for _ in range(batches):
        golds, completions, labels = [], [], []
        for _ in range(prompts):
            gold, right, wrong = KINDS[kind](rng)
            for _ in range(G):
                label = rng.random() < 0.5
                text = rf"The answer is \boxed{{{rng.choice(right if label else wrong)}}}."
                odd = rng.random() if kind == "hostile" else 1.0
                if odd < 0.06:
                    label = None
                    text = rf"\boxed{{{rng.choice(BOMBS)}}}" if odd < 0.01 else rng.choice(JUNK)
                a, b = rng.randrange(100), rng.randrange(100)
                golds.append(gold)
                completions.append([{"role": "assistant", "content": THOUGHT.format(a=a, b=b, c=a + b) + text}])
                labels.append(label)
        made.append((golds, completions, labels))
    return made


def ours(golds, completions):
    """Judge with the reward of this project."""
    from reasoning_ext.rewards.math_answer import math_answer

    return math_answer(completions, golds)


def trl(golds, completions):
    """Judge with TRL's reward, which reads the whole completion."""
    from trl.rewards import accuracy_reward

    return accuracy_reward(completions, [f"${gold}$" for gold in golds])


def math_verify(golds, completions):
    """Judge with math-verify called plainly."""
    from math_verify import parse, verify

    return [float(verify(parse(f"${g}$"), parse(c[0]["content"]))) for g, c in zip(golds, completions, strict=True)]


METHODS = {"ours": ours, "trl": trl, "math_verify": math_verify}


def measure(method, batches, results):
    """Time a method batch by batch, warm: after one pair, and a pause in which whatever it starts behind it has started."""
    METHODS[method](["x+1"], [[{"role": "assistant", "content": r"\boxed{1+x}"}]])
    time.sleep(3)
    for golds, completions, _ in batches:
        start = time.perf_counter()
        verdicts = METHODS[method](golds, completions)
        results.send((time.perf_counter() - start, verdicts))
    results.send(None)


def run(method, batches, limit):
    """Run a method in a process of its own, for `limit` seconds at the most."""
    context = multiprocessing.get_context("spawn")
    results, sending = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(method, batches, sending))
    process.start()
    done, deadline, item = [], time.monotonic() + limit, ()
    while item is not None and results.poll(max(0.0, deadline - time.monotonic())):
        item = results.recv()
        done += [item] if item else []
    process.kill()
    process.join()
    seconds = [taken for taken, _ in done]
    count = sum(len(verdicts) for _, verdicts in done)
    pairs = [
        (v, label)
        for (_, verdicts), (*_, labels) in zip(done, batches, strict=False)
        for v, label in zip(verdicts, labels, strict=True)
    ]
    size = len(batches[0][0])
    return {
        "completions": count,
        "stopped": len(done) < len(batches),
        "completions_per_second": round(count / sum(seconds)) if done else 0,
        "p50_ms_a_batch": round(1000 * statistics.median(seconds), 1) if done else None,
        "p99_ms_a_batch": round(1000 * sorted(seconds)[min(len(seconds) - 1, int(0.99 * len(seconds)))], 1)
        if done
        else None,
        "batch": size,
        "right_judged_wrong": sum(v != 1.0 for v, label in pairs if label is True),
        "wrong_judged_right": sum(v == 1.0 for v, label in pairs if label is False),
        "junk_paid": sum(v == 1.0 for v, label in pairs if label is None),
        "verdicts": [v for _, verdicts in done for v in verdicts],
    }


def full_path(batches):
    """Judge by math-verify's parser and sympy what ours decides without algebra; None for the rest.

    Numbers are compared by their exact difference, everything else by math-verify.
    """
    import sympy
    from math_verify import parse, verify

    from reasoning_ext.verifier.answers import final_answer
    from reasoning_ext.verifier.exact import decide
    from reasoning_ext.verifier.golds import read_gold

    cache, verdicts = {}, []
    for golds, completions, _ in batches:
        for gold, completion in zip(golds, completions, strict=True):
            pair = gold, completion[0]["content"].rpartition("</think>")[2]
            wanted = read_gold(gold)
            if pair not in cache and decide(wanted.text, final_answer(pair[1], wanted.many) or "") is None:
                cache[pair] = None
            if pair not in cache:
                left, right = (parse(text, parsing_timeout=None)[:1] for text in (f"${gold}$", pair[1]))
                numbers = [one for one in left + right if isinstance(one, sympy.Expr) and one.is_number]
                if len(numbers) == 2:
                    cache[pair] = sympy.nsimplify(numbers[0] - numbers[1], rational=True).equals(0)
                else:
                    cache[pair] = verify(left, right, timeout_seconds=None)
            verdicts.append(None if cache[pair] is None else float(bool(cache[pair])))
    return verdicts


def busy():
    """Keep a core busy until it is killed."""
    while True:
        pass


HEAD = (
    f"{'set':10s} {'method':12s} {'compl./s':>9s} {'x TRL':>7s} {'p50 ms':>8s} {'p99 ms':>8s} {'lost':>5s} {'paid':>5s}"
)


def line(kind, method, row):
    """Write one row of the table."""
    paid = row["wrong_judged_right"] + row["junk_paid"]
    text = f"{kind:10s} {method:12s} {row['completions_per_second']:9d} {row['times_trl'] or 0:7.1f}"
    text += (
        f" {row['p50_ms_a_batch'] or 0:8.1f} {row['p99_ms_a_batch'] or 0:8.1f} {row['right_judged_wrong']:5d} {paid:5d}"
    )
    text += f"  stopped after {row['completions']} completions" if row["stopped"] else ""
    return text + (
        f"  {row['differ_from_full_path']} differ from the full path" if "differ_from_full_path" in row else ""
    )


def main():
    """Measure everything, print one table and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64, help="prompts a batch; each has 8 completions")
    parser.add_argument(
        "--batches", type=int, default=20, help="of math; four times as many of integers, a quarter hostile"
    )
    parser.add_argument("--load", type=int, default=0, help="other busy processes meanwhile")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that each of the others has for a set")
    args = parser.parse_args()
    others = [multiprocessing.get_context("fork").Process(target=busy, daemon=True) for _ in range(args.load)]
    for process in others:
        process.start()
    results = {}
    print(HEAD, flush=True)
    for kind, count in {
        "math": args.batches,
        "arithmetic": args.batches,
        "integers": 4 * args.batches,
        "hostile": max(1, args.batches // 4),
    }.items():
        batches = make_batches(kind, args.prompts, count)
        found = {method: run(method, batches, args.limit if method != "ours" else 3600) for method in METHODS}
        if kind != "hostile":
            verdicts = zip(found["ours"]["verdicts"], full_path(batches), strict=True)
            found["ours"]["differ_from_full_path"] = sum(full not in (None, short) for short, full in verdicts)
        for method, row in found.items():
            row.pop("verdicts")
            rate = found["trl"]["completions_per_second"]
            row["times_trl"] = round(row["completions_per_second"] / rate, 1) if rate else None
            print(line(kind, method, row), flush=True)
        results[kind] = found
    versions = {name: version(name) for name in ("math-verify", "sympy", "trl")}
    command = f"python benchmarks/verifier.py --prompts {args.prompts} --batches {args.batches} --limit {args.limit:g}"
    command += f" --load {args.load}" if args.load else ""
    header = {"command": command, "date": str(date.today()), "python": platform.python_version()}
    header |= {"cores": multiprocessing.cpu_count(), "versions": versions}
    result = RESULTS / ("verifier_loaded.json" if args.load else "verifier.json")
    result.write_text(json.dumps({**header, "sets": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
