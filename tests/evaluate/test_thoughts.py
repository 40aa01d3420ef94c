"""What is said of hand-written thoughts, measure by measure, and of trainings and long thoughts."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from reasoning_ext.rewards.step_check import step_check, steps

from reasoning_ext.evaluate import page
from reasoning_ext.evaluate.over_steps import over_steps
from reasoning_ext.evaluate.thoughts import labels, print_thoughts, thoughts
from reasoning_ext.runs.read import columns, group, read_run
from reasoning_ext.runs.report import render
from tests.timing import seconds


def row(thought, answer="7", problem=0, sample=0, **others):
    return {"completion": f"<think>{thought}</think>{answer}", "prompt_index": problem, "sample_index": sample} | others


def measure(name, thought, answer="7", **others):
    value = thoughts([row(thought, answer, **others)]).get(name)
    return value[0] if isinstance(value, list) else value


def test_steps_are_in_order_with_what_they_work_out():
    found = steps("48/2 = <<48/2=24>>24\nx = 3*(4+1) = 3*5 = 15, no: 7*1 = 7; 15 + 24 = 40\n100*25% = 25")
    assert [(step.text, step.holds, step.result) for step in found] == [
        ("48/2=24", True, 24), ("48/2=24", True, 24), ("3*(4+1)=3*5", True, None), ("3*5=15", True, 15), ("7*1=7", None, 7),
        ("15+24=40", False, 40), ("100*25%=25", True, 25),
    ]  # fmt: skip
    assert found[5].value == 39 and found[5].numbers == {15, 24} and found[6].numbers == {1, 100, 25, 0.25}
    assert [step.text for step in steps("2+1=<<2+1=3>>3 times\n3*60=<<3*60=180>>180")] == ["2+1=3"] + ["3*60=180"] * 2
    assert [step.said for step in steps("50% = 20/40; 2-5 = -3")] == ["50%", "-3"]


TRUE_STEPS = {"3+4=7; 7*2=15": 0.5, "3+4=7; 3+4=7; 7*2=15": 0.5, "3+4=8; 7*2=15": 0.0}
TRUE_STEPS |= {"7*1=7; x = 5": None, "words": None}
FIRST_WRONG = {"3+4=8": 1, "3+4=7; 7*2=15; 15-1=13": 2, "3+4=7; 3+4=7; 7*2=15": 2, "3+4=7": None, "words": None}
SUBGOALS = {
    "3+4=7; 7*2=14": 1, "3+4=7; 5+1=6; 6+7=13": 2, "3+4=7": 0, "7*2=14; 3+4=7": 0, "3+4=7; 7*2=14; 7*3=21": 1,
    "3-8=-5; 2-5=-3": 1, "words": None,
}  # fmt: skip
FOLLOWS = [
    ("3+4=7; 7*2=14", "14", 1.0), ("3+4=7; 7*2=14", r"So it is \boxed{14.0} apples.", 1.0), ("3+4=7; 7*2=14", "7", 0.0),
    ("1/4*2 = 0.5", r"\frac{1}{2}", 1.0), ("3+4=8", "8", 1.0), ("3+4=7", "I do not know.", 0.0), ("words", "7", None),
    ("3+4=7", "<think>9", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "table"),
    [("true steps", TRUE_STEPS), ("first wrong step", FIRST_WRONG), ("subgoals", SUBGOALS)],
    ids=["true", "first", "subgoals"],
)
def test_equations_of_one_thought(name, table):
    assert {thought: measure(name, thought) for thought in table} == table


def test_true_steps_are_what_step_check_pays():
    texts = [f"<think>{thought}</think>7" for thought in TRUE_STEPS]
    assert step_check(texts) == [*TRUE_STEPS.values()]


@pytest.mark.parametrize(("thought", "answer", "share"), FOLLOWS)
def test_an_answer_follows_from_the_last_equation(thought, answer, share):
    assert measure("answer follows", thought, answer) == share


def test_an_answer_among_the_steps_may_be_followed_by_others():
    assert measure("answer follows", "340/20=17; 17*20=340", "17") == 0.0
    assert measure("answer among steps", "340/20=17; 17*20=340", "17") == 1.0
    assert measure("answer among steps", "340/20=17; 17*20=340", "20") == 0.0


CORRECTED = {
    "the same sum": ("12*4=46. No, 12*4=48", "48", 1.0),
    "turned round": ("12*4=46. No, 4*12=48", "48", 1.0),
    "by its parts, and answered": ("12*4=46. Hmm, 10*4+2*4=48", "48", 1.0),
    "by its parts, and used": ("12*4=46. Hmm, 10*4=40; 2*4=8; 40+8=48. 48+1=49", "49", 1.0),
    "of a later step": ("12*4=48; 48+1=50; 48+1=49", "49", 1.0),
    "the word alone": ("12*4=46. Wait, let me check that again. Yes, 12*4=46", "46", 0.0),
    "wrong again": ("12*4=46. No, 12*4=47", "47", 0.0),
    "the right one came first": ("12*4=48. No, 12*4=46", "46", 0.0),
    "the wrong result goes on": ("12*4=46. No, 12*4=48. 46+1=47", "47", 0.0),
    "built on the wrong result": ("3+4=8; 8-1=7", "7", 0.0),
    "the value by chance, from other numbers": ("12*4=46; 3+5=8; 50-2=48; 8+1=9", "9", 0.0),
    "the value, and nothing made of it": ("12*4=46. Hmm, 10*4+2*4=48", "46", 0.0),
    "nothing wrong": ("12*4=48; 12*4=48", "48", None),
}


@pytest.mark.parametrize("name", CORRECTED)
def test_backtracking_is_a_correction(name):
    thought, answer, share = CORRECTED[name]
    assert measure("backtracking", thought, answer) == share


CHECKED = {
    "the inverse": ("340/20=17. Check: 17*20=340", "17", 1.0),
    "the inverse of what goes on": ("340/20=17; 17*20=340; 17+5=22", "22", 1.0),
    "a square": ("5*5=25; 25/5=5", "25", 1.0),
    "a half of itself": ("4/2=2. Check: 2*2=4", "2", 1.0),
    "a second way": ("30+18=48; 8*2=16; 16*3=48", "48", 1.0),
    "the answer put in": ("x+y is 11; 250/10=25; 25*10+50=300", "25", 1.0),
    "no answer, the last result": ("30+18=48; 8*2=16; 16*3=48", "<think>", 1.0),
    "a story that turns back": ("10-3=7; 7+3=10", "10", 0.0),
    "a story that ends in a number of the problem": ("40-20=20; 20-10=10", "10", 0.0),
    "a story that turns back later": ("10-3=7; 7*2=14; 7+3=10", "10", 0.0),
    "a story that goes on": ("10-3=7; 7+3=10; 10*2=20", "20", 0.0),
    "a result of which nothing is made": ("340/20=17; 17*20=340; 3+5=8", "8", 0.0),
    "a false inverse": ("340/20=16; 16*20=340", "16", 0.0),
    "the same sum again": ("17*20=340; 3+1=4; 20*17=340", "340", 0.0),
    "rewritten at once": ("16/2=8; 16*1/2=8", "8", 0.0),
    "built on the first": ("36/3=12; 12+12=24; 36-24=12", "12", 0.0),
    "built on the first, in a chain": ("42+3=45; (45+66+24)/3 = 135/3 = 45", "45", 0.0),
    "the word alone": ("17*20=340. Let me double-check: yes, that is right.", "340", 0.0),
    "no equation": ("I double-checked.", "340", None),
}


@pytest.mark.parametrize("name", CHECKED)
def test_verification_is_another_true_equation(name):
    thought, answer, share = CHECKED[name]
    assert measure("verification", thought, answer, prompt="He has $50 of $300, and gets 10 a day.") == share


def test_a_thought_is_closed_cut_off_or_the_whole_text():
    texts = {"<think>3+4=7; 7+20=2": 1, "3+4=7; 7+1=8": 2, "<think></think>3+4=7": None, "3+4=7</think>9+9=18": 1}
    found = {text: thoughts([{"completion": text, "prompt_index": 0}]).get("equations") for text in texts}
    assert found == texts
    words = ["Let me RE-EXAMINE it.", "I double-check.", "go over the steps", "Wait, really?", "check"]
    assert [measure("reflection words", word) for word in words] == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_what_applies_to_no_thought_is_left_out():
    assert thoughts([]) == {} and thoughts([row("3+4=7", error="no answer")]) == {}
    assert [*thoughts([row("words")])] == ["with equations", "reflection words"]
    assert [*thoughts([row("3+4=8", "9")])] == [
        "with equations", "equations", "true steps", "first wrong step", "answer follows", "answer among steps",
        "backtracking", "verification", "subgoals", "reflection words",
    ]  # fmt: skip


def test_shares_are_means_over_problems_of_the_plain_sampled_completions():
    rows = [row("3+4=7", "7", 0, g) for g in range(3)] + [row("3+4=8", "9", 1, g) for g in range(2)]
    rows += (
        [row("words", "7", 2)]
        + [row("1+1=3", "3", p, -1) for p in range(3)]
        + [row("1+1=3", "3", 0, 3, way="min_thinking=1")]
    )
    figures = thoughts(rows)
    assert figures["true steps"][0] == figures["answer follows"][0] == 0.5 and figures["with equations"][0] == 0.6667
    assert figures["true steps"][1] < 0.5 < figures["true steps"][2]
    assert thoughts([one for one in rows if one["sample_index"] == -1])["true steps"][0] == 0.0


def test_several_samples_have_ways_and_agree():
    first = [row("3+4=7", "7", 0, g) for g in range(2)] + [row("4+3=7", "7.0", 0, 2), row("5+3=8", "8", 0, 3)]
    second = [row("1+1=2", "2", 1, 0), row("1+1=2", "3", 1, 1), row("words", "<think>", 1, 2), row("1+1=2", "2", 1, 3)]
    figures = thoughts(second + first)
    assert figures["ways@4"] == 2.5 and figures["agree@4"][0] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert "ways@3" in thoughts(second[:3] + first) and "agree@1" not in thoughts(first[:1] + second)


def test_lengths_by_the_share_of_right_samples():
    def samples(problem, rewards, tokens):
        return [row("", "7", problem, g, tokens=tokens + g, rewards={"r": r}) for g, r in enumerate(rewards)]

    rows = samples(0, [0, 0, 1], 30) + samples(1, [1, 0, None], 20)
    rows += samples(2, [1, 1, 0], 10) + samples(3, [1, 1, 1], 2)
    found = {name: value for name, value in thoughts(rows, "r").items() if name.startswith("tokens")}
    assert found == {"tokens, hard problems": 31, "tokens, middle problems": 20.5, "tokens, easy problems": 7}
    single = [samples(p, [p % 2], 10 * p)[0] for p in range(4)]
    assert [thoughts(single, "r").get(f"tokens, {name}") for name in ("right", "wrong")] == [20, 10]
    assert not [name for name in thoughts(rows) if name.startswith("tokens")]


def write_tables(folder, texts):
    (folder / "completions").mkdir(parents=True)
    for step, pair in enumerate(texts, 1):
        prompts = [[{"role": "user", "content": "3 and 4?"}]] * 2
        rows = {"step": [step] * 2, "prompt": prompts, "completion": [[{"role": "assistant", "content": "7"}]] * 2}
        file = folder / "completions" / f"completions_{step:05d}.parquet"
        pyarrow.parquet.write_table(pyarrow.table(rows | {"whole": pair}), file)


def test_a_period_has_lengths_by_the_pass_rates_of_its_prompts_with_intervals_and_no_more_than_so_many(
    tmp_path, monkeypatch
):
    (tmp_path / "recipe.yaml").write_text("stage: grpo\nreward_funcs: [think_format, {math_answer: {weight: 1.0}}]\n")
    (tmp_path / "completions").mkdir()
    texts = {1.0: "<think>3+4=7</think>7", 0.0: "<think>3+4=8</think>8"}
    rewards = [[1.0, 1.0]] * 6 + [[0.0, 0.0]] * 4  # of ten prompts
    rows = [(f"{p} of {step}?", step, r) for step in (1, 2) for p, pair in enumerate(rewards) for r in pair]
    columns = {
        "step": [step for _, step, _ in rows],
        "prompt": [[{"role": "user", "content": asked}] for asked, *_ in rows],
        "completion": [[{"role": "assistant", "content": texts[r][0 if i % 2 else 15 :]}] for i, (*_, r) in enumerate(rows)],
        "math_answer": [r for *_, r in rows],
        "tokens": [int(5 + 10 * r + i % 2) for i, (*_, r) in enumerate(rows)],
    }  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "completions" / "completions_00002.parquet")
    [(label, figures)] = over_steps(tmp_path).items()
    assert label == "steps 1 to 2" and figures["thinks"][0] == 0.5 and figures["thinks"][1] < 0.5 < figures["thinks"][2]
    assert (figures["tokens, easy problems"], figures["tokens, hard problems"]) == (15.5, 5.5)
    assert (
        figures["intervals"]["tokens, easy problems"] == [15.5, 15.5, 15.5] and "tokens, middle problems" not in figures
    )
    monkeypatch.setattr("reasoning_ext.evaluate.over_steps.MOST", 8 * 8)  # four prompts of a period
    asked = []
    monkeypatch.setattr("reasoning_ext.evaluate.over_steps.thoughts", lambda lines, decides: asked.extend(lines) or {})
    assert (
        [*over_steps(tmp_path)] == ["steps 1 to 2"]
        and len(asked) == 8
        and len({one["prompt_index"] for one in asked}) == 4
    )
    asked.clear()
    monkeypatch.setattr("reasoning_ext.evaluate.over_steps.LETTERS", 8 * 50)
    assert [*over_steps(tmp_path)] == ["steps 1 to 2"] and 2 <= len(asked) <= 4


def test_counts_have_the_interval_of_a_mean_over_problems():
    rows = [row(";".join(["3+4=7"] + [f"7+{i}={7 + i}" for i in range(p)]), "7", p) for p in (1, 2, 3)]
    found = thoughts(rows)
    assert found["equations"] == 3 and found["intervals"]["equations"] == [3.0, 0.52, 5.48]
    assert "intervals" not in thoughts(rows[:1])


def test_a_training_is_followed_over_its_steps(tmp_path, monkeypatch):
    right, wrong = "<think>3+4=7</think>7", "<think>3+4=8</think>8"
    write_tables(tmp_path, [[wrong, wrong], *[[wrong, right]] * 8, [right, right]])
    (tmp_path / "completions" / "completions_00003.parquet").write_text("damaged")
    assert len(over_steps(tmp_path)) == 7  # of eight periods, one of which has a damaged table alone
    monkeypatch.setattr("reasoning_ext.evaluate.over_steps.PERIODS", 5)
    found = over_steps(tmp_path)
    assert [*found] == ["steps 1 to 2", "step 4", "steps 5 to 6", "steps 7 to 8", "steps 9 to 10"]
    assert [figures["true steps"][0] for figures in found.values()] == [0.25, 0.5, 0.5, 0.5, 0.75]
    assert [figures["agree@2"][0] for figures in found.values()] == [0.75, 0.5, 0.5, 0.5, 0.75]
    assert {figures["thinks"][0] for figures in found.values()} == {1.0} and over_steps(tmp_path / "completions") == {}
    monkeypatch.setattr("reasoning_ext.evaluate.over_steps.TABLES", 1)
    assert [*over_steps(tmp_path)] == ["step 2", "step 4", "step 6", "step 8", "step 10"]  # the last of each period
    (tmp_path / "recipe.yaml").write_text("stage: grpo")
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "reward": 0.5}))
    run = read_run(tmp_path)
    run.thoughts = found
    page = render([run])
    assert "steps 9 to 10" in page and "agree@2" in page


def test_an_evaluation_and_its_report_have_a_table_of_their_own(tmp_path, capsys):
    results = {"a<b": {"problems": 1, "greedy": [0.5, 0.4, 0.6]}, "c": {"problems": 1}}
    results["a<b"]["thoughts"] = thoughts([row("3+4=7", model="a<b")], "r")
    assert columns(results) == ["problems", "greedy"] and [*group(results, "thoughts")] == ["a<b"]
    print_thoughts(results)
    assert "true steps" in capsys.readouterr().out
    (tmp_path / "recipe.yaml").write_text("stage: eval")
    (tmp_path / "eval.json").write_text(json.dumps(results))
    page = render([read_run(tmp_path)])
    assert "true steps" in page and "a&lt;b" in page and "{&#39;" not in page
    print_thoughts({"c": {}})
    assert not capsys.readouterr().out


FLOODS = [
    "{a}*{b}={c}1; ",
    "{a}+{b}=<<{a}+{b}={c}>>{c}\n",
    "{a}*7=7{a}; {a}+8-{a}=8; ",
    "{a}*{b}={c}; {c}/{b}={a}; ",
    "{a},\n",
]


@pytest.mark.parametrize("bit", FLOODS)
def test_a_long_thought_costs_linear_time(bit):
    def took(length):
        bits = [bit.format(a=a, b=a % 89 + 2, c=a * (a % 89 + 2)) for a in range(2, length // 8)]
        return seconds(lambda: thoughts([row("".join(bits)[:length], "8", prompt="8 " * 1000)]), repeat=1)

    assert any(took(60_000) < 9 * took(15_000) for _ in range(3))  # 4 times is linear, 16 times is quadratic


def test_labels_of_single_completions_are_what_the_shares_are_of():
    rows = [row(thought, answer, problem=i) for i, (thought, answer, _) in enumerate(FOLLOWS)]
    rows += [row(thought, answer, problem=i) for i, (thought, answer, _) in enumerate(CORRECTED.values(), len(rows))]
    rows += [row(thought, problem=i) for i, thought in enumerate((*SUBGOALS, "wait, let me check again"), len(rows))]
    told, figures = labels(rows), thoughts(rows)
    names = (
        "with equations",
        "answer follows",
        "answer among steps",
        "backtracking",
        "verification",
        "reflection words",
    )
    for name in names:
        applies = [one[name] for one in told if name in one]
        assert sum(applies) / len(applies) == pytest.approx(figures[name][0], abs=1e-4), name
    goals = [one.get("subgoals") for one in labels([row(thought) for thought in SUBGOALS])]
    assert goals == [None if count is None else count > 0 for count in SUBGOALS.values()]
    assert labels([row("3+4=7")])[0]["thinks"] and labels([row("3+4=8")])[0]["true steps"] is False and labels([]) == []
    assert labels([{"completion": "no thought"}]) == [
        {"thinks": False, "with equations": False, "reflection words": False}
    ]


def test_a_page_that_is_watched_reads_thoughts_again_when_a_training_has_grown(tmp_path, monkeypatch):
    read, grown = [], []
    (tmp_path / "run" / "completions").mkdir(parents=True)
    (tmp_path / "run" / "recipe.yaml").write_text("stage: grpo\n")

    def watch(runs, every, write):
        for count in range(17):
            (tmp_path / "run" / "completions" / f"{count}.parquet").touch()
            write(every)
            grown.append(len(read))
        write(None)

    monkeypatch.setattr(page, "over_steps", lambda run: read.append(run) or {})
    monkeypatch.setattr(page, "watch_runs", watch)
    page.report_and_print([tmp_path / "run"], None, None, 5)
    assert grown == [1] * 7 + [2] * 8 + [3] * 2 and len(read) == 4, "and once more at the end"
