"""The report of a small made-up pipeline whose model, data set and labels are hostile, and of runs that were cut off."""

import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from reasoning_ext.errors import UserError
from reasoning_ext.runs import read as run_reading
from reasoning_ext.runs import report as report_module
from reasoning_ext.runs.figures import checkpoint_curves
from reasoning_ext.runs.report import save_curves, write_report
from reasoning_ext.runs.texts import split_text
from reasoning_ext.runs.verdicts import Figure, compare, verdicts

SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(2)>'
TRICKY = "$x_{$</svg>" + SCRIPT  # a label that is neither mathematics nor markup
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would see: the elements, whether they are nested rightly, and the text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = ""
        self.own: list[str] = []  # what stands in script and style elements
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.own.append(data)
        else:
            self.text += data


def write_run(path: Path, recipe: dict, files: dict[str, object], seconds: float | None = 75.0) -> Path:
    """Write a run's folder by hand; lists become JSONL, and mappings JSON."""
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(yaml.safe_dump({"output_dir": f"runs/x/{path.name}"} | recipe, sort_keys=False))
    files = {"lineage.json": {"recipe": "0123", "inputs": {}}, "versions.json": {"trl": "9.8.7"}} | files
    if seconds is not None:
        files["DONE"] = {"finished": "2030-01-01T00:00:00+0000", "seconds": seconds}
    for name, value in files.items():
        lines = value if isinstance(value, list) else [value]
        (path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_sft(root: Path) -> Path:
    log = [{"step": s, "seconds": s, "loss": 2.5 / s, "mean_token_accuracy": 1 - 1 / s} for s in range(1, 31)]
    recipe = {"stage": "sft", "model_name_or_path": "./model", "from_scratch": True, "dataset_name": "./digits.py"}
    return write_run(root / "1_sft", recipe, {"metrics.jsonl": log})


def write_grpo(root: Path, seconds: float | None = 75.0) -> Path:
    log = [
        {"step": s, "reward": s / 20, "rewards/math_answer/mean": s / 20, f"rewards/{TRICKY}/mean": float("nan")}
        | {"rewards/think_format/mean": 0.5, "completions/mean_length": 17.0 + s, "completions/clipped_ratio": 0.0}
        for s in range(1, 21)
    ]
    rewards = ["math_answer", {"think_format": {"weight": 0.0}}]
    recipe = {"stage": "grpo", "model_name_or_path": "runs/x/1_sft", "reward_funcs": rewards}
    path = write_run(root / "2_grpo", recipe, {"metrics.jsonl": log}, seconds)
    (path / "completions").mkdir()
    for step, texts in ((1, ["old"] * 4), (20, ["<think>9+9=18</think>8", SCRIPT, f"<think>{SCRIPT}", IMAGE])):
        table = {
            "step": [step] * 4,
            "prompt": [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"9+9 {IMAGE}"}]] * 4,
            "completion": [[{"role": "assistant", "content": text}] for text in texts],
            "whole": ["<think>whole</think>8", None, None, None],  # where the template opened the thought
            "math_answer": [1.0, 0.0, None, 0.0],
            "think_format": [0.0, 1.0, 1.0, 1.0],
            "advantage": [1.5, -0.5, -0.5, -0.5],
        }
        pyarrow.parquet.write_table(pyarrow.table(table), path / "completions" / f"completions_{step:05d}.parquet")
    return path


def write_sample(root: Path) -> Path:
    rows = [
        {
            "prompt_index": i,
            "sample_index": 0,
            "prompt": [{"role": "user", "content": f"problem {i} \ud800"}],
            "answer": "8",
        }
        | {"completion": f"<think>t</think>{i}", "rewards": {"math_answer": float(i == 8)}}
        for i in range(10)
    ]
    summary = {"sampled": 10, "kept": 1, "prompts without one": 9, "pairs": {"right_wrong": 3, "steps": 1}}
    recipe = {"stage": "sample", "model_name_or_path": "runs/x/2_grpo", "reward_funcs": ["math_answer"]}
    return write_run(root / "3_sample", recipe, {"samples.jsonl": rows, "summary.json": summary})


def write_eval(root: Path) -> Path:
    known = {"problems": 3, "in training data": 0}
    sft = {"greedy": [0.1025, 0.0764, 0.1362], "pass@1": [0.3912, 0.3601, 0.4232], "mean tokens": 17.25}
    grpo = {"greedy": [0.9533, 0.9271, 0.9703], "pass@1": [0.9444, 0.9222, 0.9606], "truncated": 0.0}
    right = {"sft": [0] * 8 + [1], TRICKY: [1] * 9}
    answers = [
        {"model": model, "prompt_index": p, "sample_index": g, "prompt": f"held-out {p} {SCRIPT}", "answer": IMAGE}
        | {"completion": f"<think>because</think>{model} says {p}", "tokens": 9, "finished": True}
        | {"rewards": {"math_answer": float(right[model][p] if g == -1 else not right[model][p]), "think_format": 1.0}}
        for model in right
        for p in range(9)
        for g in (-1, 0)  # only the greedy answer, -1, counts for before and after
    ]
    models = {"sft": "runs/x/1_sft", TRICKY: "runs/x/2_grpo"}
    recipe = {"stage": "eval", "models": models, "dataset_name": "./digits.py"}
    example = {"question": IMAGE, "answer": SCRIPT, "completion": f"<think>{SCRIPT}</think>{IMAGE}", "better": SCRIPT}
    slip = {"count": 3, "share": [0.375, 0.13, 0.69], "gives_back": [0.3333, 0.12, 0.61], "meaning": SCRIPT}
    slip |= {"edit": IMAGE, "example": example | {"step": 4, "steps": 3, "text": SCRIPT}}
    causes = {TRICKY: {"of": 9, "wrong": 8, "looked_at": 8, "causes": {"slip": slip, SCRIPT: {"count": SCRIPT}}}}
    results = {"sft": known | sft, TRICKY: known | grpo}
    told = {"problems": 9, "without a thought": 1, "faithful": [0.75, 0.4, 0.9], "known after": 0.5}
    explained = {
        TRICKY: told,
        "checkpoint-9": told | {"steps": SCRIPT},
        "checkpoint-10": told,
        IMAGE: {"problems": SCRIPT},
    }
    files = {"answers.jsonl": answers, "errors.json": causes, "explained.json": explained}
    return write_run(root / "4_eval", recipe, {"eval.json": results} | files)


def write_all(root: Path) -> Path:
    for write in (write_eval, write_sample, write_grpo, write_sft):
        write(root / "x")
    return root / "x"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return write_all(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[str, Page]:
    """The report of the whole pipeline."""
    return report(write_all(tmp_path_factory.mktemp("whole")))


def report(*paths: Path) -> tuple[str, Page]:
    written = Path(write_report(list(paths), None).split()[1])
    html = written.read_text(encoding="utf-8")
    return html, Page(html)


def ids(page: Page, begin: str) -> list[str]:
    return [value for name, value in page.attributes if name == "id" and str(value).startswith(begin)]


def test_hostile_text_is_shown_and_never_markup(whole):
    html, page = whole
    assert page.open == []
    assert not {"img", "iframe", "object", "link"} & set(page.tags)
    ours = (report_module.TEMPLATES / "browser.js").read_text()
    assert [text for text in page.own if SCRIPT in text] == [] and ours in page.own
    assert html.lower().count("<script") == page.tags.count("script") <= 2, "ours, and the samples as data"
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    for shown in (SCRIPT, IMAGE, TRICKY, f"held-out 0 {SCRIPT}", "says 0"):
        assert shown in page.text
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "action")]
    assert links and all(value.startswith("#") for value in links)
    assert not re.findall(r"url\((?!#)|@import", html)


def test_figures_of_the_evaluation(whole):
    _, page = whole
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    for figure in ("10.2 % → 95.3 %", "[7.6, 13.6] → [92.7, 97.0]", "39.1 % → 94.4 %", "[92.2, 96.1]", "17.25"):
        assert figure in text
    assert f"sft → {TRICKY}" in text, "before is found by the lineage"
    assert f"{TRICKY} is better (greedy) and worse (pass@1) than sft" in text, (
        "as the answers say, on the same problems"
    )
    assert "p = 0.0078; 8 problems better, 0 worse" in text and "0 problems better, 8 worse" in text


def test_causes_of_wrong_answers_stand_with_shares_and_an_example(whole):
    _, page = whole
    assert ids(page, "errors") == ["errors"]
    assert ids(page, "explained") == ["explained", "explained-4-1", "explained-4-2"]
    assert f"8 of 9 answers of {TRICKY} are wrong" in page.text
    for shown in ("37.5 [13.0, 69.0]", "33.3 [12.0, 61.0]", "first at the answer, behind 3 true steps"):
        assert shown in page.text


def test_an_evaluation_of_greedy_completions_alone_says_nothing_of_sampled_ones(tmp_path):
    results = json.loads((write_eval(tmp_path) / "eval.json").read_text())
    assert "pass@1" in report(tmp_path)[1].text
    for figures in results.values():
        del figures["pass@1"]
    (tmp_path / "4_eval" / "eval.json").write_text(json.dumps(results))
    html, page = report(tmp_path)
    assert "pass@" not in html and "95.3 %" in page.text.replace("\N{NO-BREAK SPACE}", " ")


LOW, MIDDLE, HIGH = [0.1, 0.05, 0.2], [0.25, 0.15, 0.35], [0.9, 0.8, 0.95]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([LOW, LOW], [HIGH, HIGH], "better than"), ([HIGH, HIGH], [LOW, LOW], "worse than"),
        ([LOW, LOW], [MIDDLE, MIDDLE], "not told apart from"),
        ([LOW, HIGH], [HIGH, LOW], "better (greedy) and worse (pass@1) than"),
    ],
)  # fmt: skip
def test_verdict_in_words_without_answers(before, after, words):
    assert compare(list(map(Figure, ["greedy", "pass@1"], before, after))) == words


def checkpoints(tmp_path, greedy, models, prefix=""):
    """Write a run and an evaluation of its checkpoints, which solve so many of 40 problems each."""
    answers = [
        {"model": label, "prompt_index": p, "sample_index": -1, "completion": "x", "rewards": {"r": float(p < right)}}
        for label, right in greedy.items()
        for p in range(40)
    ]
    results = {label: {"problems": 40, "greedy": [right / 40, 0.1, 0.9]} for label, right in greedy.items()}
    write_grpo(tmp_path / "x")
    return write_run(
        tmp_path / "x" / "4_eval", {"stage": "eval", "models": models}, {"eval.json": results, "answers.jsonl": answers}
    )


def test_a_paired_test_tells_what_intervals_do_not(tmp_path):
    greedy = {"sft": 20, "grpo": 26}
    path = checkpoints(tmp_path, greedy, {"sft": "runs/x/1_sft", "grpo": "runs/x/2_grpo"})
    for answers, words in ((True, "grpo is better than sft"), (False, "grpo is not told apart from sft")):
        if not answers:
            (path / "answers.jsonl").write_text("")
        text = report(tmp_path / "x")[1].text
        assert words in text and ("p = 0.031" in text) == answers and ("do not overlap" in text) != answers


def test_verdicts_of_several_models_are_corrected_together(tmp_path):
    greedy = {"sft": 20, "checkpoint-9": 26, "checkpoint-20": 27}
    checkpoints(tmp_path, greedy, ["runs/x/1_sft", "runs/x/2_grpo/checkpoint-*"])
    path = tmp_path / "x" / "4_eval" / "recipe.yaml"
    path.write_text(path.read_text().replace("- runs/x/1_sft", "- runs/x/sft"))
    grpo = tmp_path / "x" / "2_grpo" / "recipe.yaml"
    grpo.write_text(grpo.read_text().replace("runs/x/1_sft", "runs/x/sft"))
    rows = verdicts([run_reading.read_run(path.parent)], {"runs/x/2_grpo": run_reading.read_run(grpo.parent)})
    assert [(row["label"], row["before"], row["word"]) for row in rows] == [
        ("checkpoint-9", "sft", "better than"), ("checkpoint-20", "sft", "better than")
    ]  # fmt: skip
    assert [figure.p for row in rows for figure in row["figures"]] == pytest.approx([2 / 2**6, 2 * 2 / 2**7])


def test_checkpoints_have_a_curve_over_their_steps(tmp_path):
    greedy = {f"grpo checkpoint-{step}": right for step, right in ((9, 5), (10, 30), (200, 32))}
    checkpoints(tmp_path, greedy, {"grpo": "runs/x/2_grpo/checkpoint-*"})
    html, page = report(tmp_path / "x" / "4_eval")
    assert ids(page, "checkpoints-") == ["checkpoints-1-1"] and "grpo: greedy" in page.text
    assert "step 9" in page.text and "step 200" in page.text and html.count('class="whisker') == 3 + 3
    assert "grpo checkpoint-10, 75.0 %, is the earliest not told apart" in page.text
    [curve] = checkpoint_curves(run_reading.read_run(tmp_path / "x" / "4_eval").results)
    assert curve.points == [(9, 0.125), (10, 0.75), (200, 0.8)] and curve.intervals[0] == (0.1, 0.9)


def test_stages_in_order_with_lineage(whole):
    html, page = whole
    cells = [re.findall(r"<td.*?>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", html, re.S)]
    stages = {text[0]: text[1:] for row in cells if (text := [Page(cell).text.strip() for cell in row])}
    assert [name for name in stages if re.match(r"\d_", name)] == ["1_sft", "2_grpo", "3_sample", "4_eval"]
    assert stages["1_sft"] == ["sft", "./model (random weights)", "./digits.py", "done", "0:01:15"]
    assert stages["2_grpo"][:2] == ["grpo", "1_sft"]
    assert stages["3_sample"][:2] == ["sample", "2_grpo"]
    assert stages["4_eval"][:2] == ["eval", f"sft: 1_sft{TRICKY}: 2_grpo"]
    assert html.count('href="#run-2"') == 3, "2_grpo is named in its own row, by 3_sample and by 4_eval"
    assert "not finished" not in page.text
    assert "trl 9.8.7" in page.text and "output_dir: runs/x/2_grpo" in page.text


def test_problems_that_differ_are_grouped(whole):
    _, page = whole
    assert "8 of 9 problems" in page.text, "eight problems went from wrong to right, the last was right before"
    assert "held-out 0" in page.text and "held-out 8" not in page.text
    marks = re.findall(r"(\S+) (✓ right|✗ wrong)", " ".join(page.text.split()))
    assert marks == [("sft", "✗ wrong"), (TRICKY, "✓ right")]


def test_curves_and_samples(whole):
    html, page = whole
    for said in (
        "loss", "mean token accuracy", "accuracy (math_answer)", "share of thoughts", "mean length", "share cut off",
        "right_wrong 3, steps 1", "prompts without one",
    ):  # fmt: skip
        assert said in page.text
    assert len(ids(page, "curve-sft-")) == 3 and len(ids(page, "curve-grpo-")) == 5, "what is nan alone is left out"
    assert r"problem 8 \\ud800" in html and "9+9=18" not in html, "a thought that the template opened is shown whole"


@pytest.mark.parametrize(
    ("completion", "thought", "answer"),
    [("<think>a</think>b", "a", "b"), ("b", None, "b"), ("<think>a", "a", None), ("<think></think>b", "", "b")],
)
def test_split_text_keeps_an_unclosed_thought(completion: str, thought: str | None, answer: str | None):
    assert split_text([{"role": "assistant", "content": completion}]) == (thought, answer)
    long = split_text(completion.replace("a", "x" * 10_000)).thought or ""
    assert len(long) < 5000 and ("6,000 characters left out" in long) == ("a" in completion)


def test_a_run_that_was_cut_off_is_marked(tmp_path: Path):
    path = write_grpo(tmp_path, seconds=None)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "rew')
    _, page = report(path)
    for said in ("1 run, 1 not finished", "no DONE; metrics.jsonl has 1 damaged line", "at step 20"):
        assert said in page.text


def test_damaged_files_do_not_stop_the_report(runs: Path):
    (runs / "1_sft" / "metrics.jsonl").unlink()
    (runs / "2_grpo" / "completions" / "completions_00020.parquet").write_bytes(b"PAR1 torn")
    (runs / "3_sample" / "recipe.yaml").write_text("stage: [")
    (runs / "4_eval" / "eval.json").write_text('{"sft": {"greedy": [0.1')
    (runs / "5_new").mkdir()
    (runs / "5_new" / "recipe.yaml").write_text("stage: sft\n")
    _, page = report(runs)
    files = ("completions_00020.parquet", "recipe.yaml", "eval.json")
    for said in ("5 runs, 5 not finished", "no metrics.jsonl", *(f"{file} cannot be read" for file in files)):
        assert said in page.text


HUGE = 10**400
GROUPS = [
    {"strategies": {"refine": {"accuracy": [[1], "x", HUGE], "tokens": HUGE, "rounds": 3}}},
    {"curve": {"points": [{"budget": 8, "accuracy": [1, 2, "3"]}], "best_thinking_budget": {"difference": [None] * 3}}},
    {"greedy": [HUGE, 0.1, "x"], "thoughts": {"equations": HUGE}},
]
ANSWERS = [
    {"prompt_index": [1]},
    {"prompt_index": "1"},
    {"rewards": {"math_answer": "x"}},
    {"rewards": [1]},
    {"model": []},
]


def test_damaged_figures_and_answers_do_not_stop_the_report(runs: Path):
    path = runs / "4_eval"
    results, whole = json.loads((path / "eval.json").read_text()), (path / "answers.jsonl").read_text()
    first, sample = json.loads(whole.splitlines()[0]), {"completion": "x", "advantage": "x", "rewards": [1]}
    (path / "answers.jsonl").write_text(whole + "".join(json.dumps(first | bad) + "\n" for bad in ANSWERS))
    (runs / "3_sample" / "samples.jsonl").write_text(json.dumps(sample) + "\n" + json.dumps(sample | {"advantage": 1}))
    for bad in GROUPS:
        (path / "eval.json").write_text(json.dumps(results | {"sft": results["sft"] | bad}))
        assert "4 runs" in report(runs)[1].text


def test_where_the_file_goes(runs: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("reasoning_ext.runs.report.render", lambda *_: "page")
    new = tmp_path / "new" / "page.html"
    for given, output, written, count in (
        ([runs], None, runs / "report.html", "4 runs"), ([runs / "1_sft"], None, runs / "1_sft" / "report.html", "1 run"),
        ([runs / "1_sft", runs / "2_grpo"], None, runs / "report.html", "2 runs"), ([runs, runs / "1_sft"], new, new, "4 runs"),
    ):  # fmt: skip
        assert write_report(given, output) == f"report  {written}  ({count})" and written.is_file()


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_no_run_is_an_error_in_one_line(tmp_path: Path, name: str):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=str(tmp_path / name)) as caught:
        write_report([tmp_path / name], None)
    assert "\n" not in str(caught.value) and not list(tmp_path.rglob("report.html"))


def test_save_curves_writes_a_png(runs: Path, tmp_path: Path):
    save_curves(runs / "2_grpo", tmp_path / "pictures" / "grpo.png")
    header = (tmp_path / "pictures" / "grpo.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG") and int.from_bytes(header[16:20]) == 1000
    with pytest.raises(UserError, match="found no reward"):
        save_curves(runs / "1_sft", tmp_path / "sft.png")


def test_a_long_sampling_run_is_read_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(run_reading, "MOST_SAMPLES", 2)
    assert '"shown":2,"stored":10,"counted":true' in report(write_sample(tmp_path))[0]


@pytest.mark.parametrize(
    ("counts", "called", "said"),
    [
        ((0, 0), "held-out problems", ""), ((0, None), "problems", ""),
        ((3, 3), "problems that were trained on", "3 of 3 problems are in the training data of A, B"),
        ((1, 2), "problems, some of which were trained on", "1 of 3 problems are in the training data of A; 2 of 3"),
    ],
)  # fmt: skip
def test_problems_are_called_held_out_where_that_is_known_alone(counts, called, said):
    shares = [{"problems": 3} | ({"in training data": n} if n is not None else {}) for n in counts]
    results = dict(zip("AB", shares, strict=True))
    told = run_reading.in_training(results)
    assert run_reading.problems_of(results) == called and told.startswith(said) and bool(told) == bool(said)


TURNING = (
    "\u202eoverride \u2066isolate \u200fmark \u061cletter \x1b[31mred \u200bspace s\u200dft \ufeff \x00nul \x9bcsi"
)
HEBREW = "\u05d0\u05d1\u05d2"


def test_what_turns_words_about_or_is_not_seen_is_shown_by_its_number(tmp_path):
    labels = {f"{TURNING} a": "runs/x/1_sft", f"{TURNING} b": "runs/x/2_grpo", HEBREW: "c"}
    figures = {"problems": 3, "greedy": [0.5, 0.4, 0.6], "pass@1": [0.5, 0.4, 0.6]}
    written = {"prompt_index": 0, "sample_index": -1} | dict.fromkeys(("prompt", "answer", "completion"), TURNING)
    answers = [{"model": label, "rewards": {TURNING: float(i)}} | written for i, label in enumerate(labels)]
    write_sft(tmp_path / "x"), write_grpo(tmp_path / "x")
    recipe = {"stage": "eval", "models": labels, "dataset_name": TURNING}
    files = {"eval.json": dict.fromkeys(labels, figures), "answers.jsonl": answers}
    write_run(tmp_path / "x" / f"4_{HEBREW}", recipe, files | {"samples.jsonl": answers})
    html, page = report(tmp_path / "x")
    assert not [letter for letter in html if unicodedata.category(letter) in ("Cc", "Cf") and letter not in "\n\t"]
    for shown in (r"\u202eoverride", r"\u2066", r"\u200f", r"\u061c", r"\x1b[31m", r"s\u200dft", r"\x00"):
        assert shown in page.text
    assert f"<bdi>{HEBREW}</bdi>" in html
