/* The samples' browser. What models wrote reaches the page as textContent alone. Pure functions first: node can load them. */
(() => {
"use strict";

const PAGE = 25; // samples of a page
const MOST_CELLS = 4e6; // of the table that two texts are compared in, words by words

/** Return a sample's reward of this name, or its total; undefined where it has none. */
function rewardOf(row, name) {
  const value = name ? row.rewards[name] : row.total;
  return typeof value === "number" ? value : undefined;
}

/** Tell whether a value is there and between two bounds, each a text that may be empty. */
function between(value, low, high) {
  if (low === "" && high === "") return true;
  return value !== undefined && (low === "" || value >= Number(low)) && (high === "" || value <= Number(high));
}

/** Return the problems that the first model's greedy answer solves and the second's does not. */
function flipped(rows, first, second) {
  const solved = new Map();
  for (const row of rows) {
    if (row.greedy && (row.model === first || row.model === second)) {
      const key = `${row.problem} ${row.prompt}`;
      solved.set(key, { ...solved.get(key), [row.model]: row.right });
    }
  }
  return new Set([...solved].filter(([, by]) => by[first] === true && by[second] === false).map(([key]) => key));
}

/** Return a test for a text that is looked for, whatever its case; undefined for none. */
function finder(text) {
  return text ? new RegExp(text.replace(/[\\^$.*+?()[\]{}|\/-]/g, "\\$&"), "iu") : undefined;
}

/** Return the samples that are wanted, in the order that is wanted. */
function select(data, wanted) {
  const found = finder(wanted.search);
  const prompts = found && data.prompts.map((prompt) => found.test(prompt));
  const models = [wanted.first, wanted.second].map((value) => (value === "" ? undefined : Number(value)));
  const flips = models.includes(undefined) ? undefined : flipped(data.rows, ...models);
  const [, not, behaviour] = /^(!?)(\d*)$/.exec(wanted.behaviour);
  const bit = behaviour === "" ? 0 : 1 << Number(behaviour);
  const rows = data.rows.filter((row) =>
    (wanted.run === "" || row.run === Number(wanted.run)) &&
    (wanted.model === "" || row.model === Number(wanted.model)) &&
    (wanted.right === "" || String(row.right) === wanted.right) &&
    (!bit || (row.can & bit && Boolean(row.has & bit) !== Boolean(not))) &&
    (wanted.prompt === undefined || row.prompt === wanted.prompt) &&
    between(row.step, wanted.stepLow, wanted.stepHigh) &&
    between(rewardOf(row, wanted.reward), wanted.rewardLow, wanted.rewardHigh) &&
    (!flips || (row.greedy && models.includes(row.model) && flips.has(`${row.problem} ${row.prompt}`))) &&
    (!found || prompts[row.prompt] || found.test(row.thought ?? "") || found.test(row.answer ?? "") ||
      (row.turns ?? []).some(([, name, text]) => found.test(name) || found.test(text))));
  return sorted(flips && !wanted.sort ? together(rows) : rows, wanted);
}

/** Return rows with those of a prompt one after another. */
function together(rows) {
  return [...rows].sort((a, b) => a.prompt - b.prompt);
}

/** Return rows by step, reward or length, downwards behind a minus; those without it come last. */
function sorted(rows, wanted) {
  const key = wanted.sort.replace("-", "");
  if (!key) return rows;
  const of = (row) => (key === "reward" ? rewardOf(row, wanted.reward) : row[key]);
  const sign = wanted.sort.startsWith("-") ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [of(a), of(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return sign * (x - y);
  });
}

/** Return the words and tags of a text, each with the space behind it. */
function words(text) {
  return text.match(/(?:<\/?think>|(?:(?!<\/?think>)\S)+)\s*|\s+/g) ?? [];
}

/**
 * Compare two texts word by word, by their longest common subsequence.
 *
 * Returns for each text its parts, `[whether the other one has it, text]`; null where they are too long to be compared.
 */
function difference(first, second) {
  const [a, b] = [words(first), words(second)];
  const same = (i, j) => a[i].trimEnd() === b[j].trimEnd();
  let begin = 0, end = 0;
  while (begin < a.length && begin < b.length && same(begin, begin)) begin++;
  while (end < Math.min(a.length, b.length) - begin && same(a.length - 1 - end, b.length - 1 - end)) end++;
  const [n, m] = [a.length - begin - end, b.length - begin - end];
  if ((n + 1) * (m + 1) > MOST_CELLS) return null;
  const width = m + 1, longest = new Uint16Array((n + 1) * width);
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      longest[i * width + j] = same(begin + i, begin + j)
        ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const kept = [a.map((_, i) => i < begin || i >= begin + n), b.map((_, j) => j < begin || j >= begin + m)];
  for (let i = 0, j = 0; i < n && j < m;) {
    if (same(begin + i, begin + j)) kept[0][begin + i++] = kept[1][begin + j++] = true;
    else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i++;
    else j++;
  }
  return [joined(a, kept[0]), joined(b, kept[1])];
}

/** Put neighbouring words that are alike in being kept into one part. */
function joined(texts, kept) {
  const parts = [];
  texts.forEach((text, i) => {
    if (parts.length && parts[parts.length - 1][0] === kept[i]) parts[parts.length - 1][1] += text;
    else parts.push([kept[i], text]);
  });
  return parts;
}

/** Return a completion as one text, of several turns with an arrow before each call and each result. */
function whole(row) {
  const answer = row.answer ?? "";
  const last = row.thought === undefined ? answer : `<think>${row.thought}${row.answer === undefined ? "" : `</think>${answer}`}`;
  const pieces = (row.turns ?? []).map(([kind, name, text]) => ({
    thought: `<think>${text}</think>`, call: `\u2192 ${name} ${text}`, result: `\u2190 ${name} ${text}`,
  })[kind] ?? text);
  return [...pieces, last].join("\n");
}

if (typeof module !== "undefined") module.exports = { select, sorted, flipped, difference, finder, words, whole, rewardOf };
if (typeof document === "undefined" || !document.getElementById("browser-data")) return;

const data = JSON.parse(document.getElementById("browser-data").textContent);
const at = Object.fromEntries(["more", "form", "said", "diff", "list", "before", "page", "after"].map(
  (name) => [name, document.getElementById(`browser-${name}`)]));
const field = at.form.elements;
const home = document.getElementById("browser");
const filled = data.runs.filter((run) => run.shown);
const shown = { rows: [], page: 0, prompt: undefined, marked: undefined };

/** Make an element with a text or children; a child that is a string becomes text. */
function make(name, kind, ...children) {
  const element = document.createElement(name);
  if (kind) element.className = kind;
  element.append(...children.filter((child) => child !== undefined && child !== ""));
  return element;
}

function button(text, does) {
  const element = make("button", "", text);
  element.type = "button";
  element.addEventListener("click", does);
  return element;
}

function number(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(4))) : "does not apply";
}

function nameOf(row) {
  const run = data.runs[row.run].name;
  return row.model === undefined ? run : `${run}: ${data.models[row.model].label}`;
}

/** Make a block of text with what is searched for marked. */
function block(kind, text) {
  const found = finder(field.search.value), element = make("pre", kind);
  element.dir = "auto";
  let rest = text;
  for (let hit, count = 0; found && count < 200 && (hit = found.exec(rest)); count++) {
    element.append(rest.slice(0, hit.index), make("mark", "", hit[0]));
    rest = rest.slice(hit.index + hit[0].length);
  }
  element.append(rest);
  return element;
}

function mark(row) {
  if (row.right === undefined) return make("span", "dim", "\u2013 not judged");
  return row.right ? make("span", "right", "\u2713 right") : make("span", "wrong", "\u2717 wrong");
}

/** Make what a piece of a turn says, and whose it is. */
function piece([kind, name, text]) {
  const heads = { call: ["calls ", make("b", "", make("bdi", "", name))], result: [make("b", "", make("bdi", "", name)), " answers"] };
  const head = heads[kind] ?? (name ? [make("bdi", "", name)] : []);
  return make("div", "turn", head.length ? make("p", "dim", ...head) : "", block(kind, text.trim() || "(empty)"));
}

/** Make what stands in a sample that is opened. */
function opened(row) {
  const names = data.behaviours.filter((_, i) => row.has & (1 << i));
  const facts = [`${row.length.toLocaleString("en")} characters`];
  if (row.tokens !== undefined) facts.push(`${row.tokens} tokens`);
  if (row.total !== undefined) facts.push(`total reward ${number(row.total)}`);
  for (const [name, value] of Object.entries(row.rewards)) facts.push(`${name} ${number(value)}`);
  if (row.advantage !== undefined) facts.push(`advantage ${number(row.advantage)}`);
  const alike = button("all of this prompt", () => {
    at.form.reset();
    shown.prompt = row.prompt;
    setTimeout(() => at.list.querySelector("summary").focus(), 0); // behind what the reset shows
  });
  return make("div", "",
    make("p", "dim", make("bdi", "", nameOf(row))),
    block("prompt", data.prompts[row.prompt]),
    row.gold === undefined ? "" : make("p", "gold", "gold answer: ", make("b", "", make("bdi", "", row.gold))),
    ...(row.turns ?? []).map(piece),
    row.thought === undefined ? "" : block("thought", row.thought.trim() || "(empty thought)"),
    row.answer === undefined ? make("p", "dim", "no answer: the thought was never closed") : block("answer", row.answer.trim() || "(empty answer)"),
    make("p", "dim", make("bdi", "", facts.join("; "))),
    names.length ? make("p", "dim", names.join(", ")) : "",
    alike, " ", button("compare", () => compare(row)));
}

/** Make a sample's line, which is filled when it is opened. */
function line(row) {
  const begin = whole(row).slice(0, 160).replace(/\s+/g, " ");
  const facts = [filled.length > 1 || data.models.length > 1 ? nameOf(row) : "", row.step === undefined ? "" : `step ${row.step}`, row.greedy ? "greedy" : ""];
  const value = rewardOf(row, field.reward.value);
  const element = make("details", "sample-row", make("summary", "", mark(row),
    make("span", "value", value === undefined ? "\u2013" : number(value)),
    ...facts.filter(Boolean).map((fact) => make("bdi", "dim", fact)),
    make("bdi", "begin", begin)));
  element.addEventListener("toggle", () => { if (element.open && element.childElementCount === 1) element.append(opened(row)); });
  element.sample = row;
  element.classList.toggle("marked", row === shown.marked);
  return element;
}

/** Show the samples that the form asks for, from the first page on. */
function show() {
  const wanted = Object.fromEntries([...new FormData(at.form)]);
  shown.rows = select(data, { ...wanted, prompt: shown.prompt });
  const parts = data.runs.filter((run) => run.shown < run.stored).map(
    (run) => `of ${run.name} ${run.shown.toLocaleString("en")} of ${run.counted ? "" : "about "}${run.stored.toLocaleString("en")}, evenly chosen`);
  const every = `${shown.rows.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} samples`;
  at.said.textContent = [every + (shown.prompt === undefined ? "" : " (one prompt)"), ...parts].join("; ");
  turn(0);
}

function turn(page) {
  const last = Math.max(0, Math.ceil(shown.rows.length / PAGE) - 1);
  shown.page = Math.min(Math.max(page, 0), last);
  at.list.replaceChildren(...shown.rows.slice(shown.page * PAGE, (shown.page + 1) * PAGE).map(line));
  at.page.textContent = `page ${shown.page + 1} of ${last + 1}`;
  at.before.disabled = shown.page === 0;
  at.after.disabled = shown.page === last;
}

/** Mark a sample, or compare it with the marked one. */
function compare(row) {
  const other = shown.marked;
  shown.marked = other === undefined ? row : undefined;
  for (const element of at.list.children) element.classList.toggle("marked", element.sample === shown.marked);
  if (other === undefined || other === row) return;
  const found = difference(whole(other), whole(row));
  const side = (one, parts, tag) => {
    const text = make("pre");
    text.dir = "auto";
    if (parts) for (const [kept, part] of parts) text.append(kept ? part : make(tag, "", part));
    else text.append(whole(one));
    return make("div", "", make("p", "", make("bdi", "", nameOf(one)), one.step === undefined ? "" : `, step ${one.step} `, " ", mark(one)), text);
  };
  at.diff.replaceChildren(
    make("p", "", make("b", "", "Compared word by word"), found ? "" : ": too long for it, so side by side", " ", button("close", leave)),
    other.prompt === row.prompt ? block("prompt", data.prompts[row.prompt]) : make("p", "dim", "answers to different prompts"),
    make("div", "two", side(other, found?.[0], "del"), side(row, found?.[1], "ins")));
  at.diff.hidden = false;
  at.diff.focus();
}

function leave() {
  at.diff.hidden = true;
  (at.list.querySelector("details[open] > summary") ?? at.list.querySelector("summary"))?.focus();
}

/** Move to a neighbouring sample, over the page's end, too. */
function step(by) {
  const lines = [...at.list.children];
  const now = lines.indexOf(document.activeElement.closest(".sample-row"));
  let next = now < 0 ? 0 : now + by;
  if (next >= lines.length && !at.after.disabled) { turn(shown.page + 1); next = 0; }
  if (next < 0 && !at.before.disabled) { turn(shown.page - 1); next = PAGE - 1; }
  at.list.children[Math.min(Math.max(next, 0), at.list.childElementCount - 1)]?.querySelector("summary").focus();
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  n: () => { turn(shown.page + 1); step(0); },
  p: () => { turn(shown.page - 1); step(0); },
  c: () => { const row = document.activeElement.closest(".sample-row")?.sample; if (row) compare(row); },
  "/": () => field.search.focus(),
};

function pressed(event) {
  const target = event.target, within = home.contains(target) || target === document.body;
  if (event.key === "Escape" && home.contains(target)) { leave(); return; }
  if (!within || event.ctrlKey || event.metaKey || event.altKey || target.matches("input, select")) return;
  if (Object.hasOwn(KEYS, event.key)) { event.preventDefault(); KEYS[event.key](); }
}

/** Fill a choice with texts and values; what leaves no choice is not shown. */
function options(select, choices) {
  select.append(...choices.map(([text, value]) => new Option(text, value)));
  select.closest("label, fieldset").hidden = choices.length < 2;
}

options(field.run, filled.map((run) => [`${run.name} (${run.stage})`, data.runs.indexOf(run)]));
const several = new Set(data.models.map((model) => model.run)).size > 1;
const labels = data.models.map(({ run, label }, i) => [(several ? `${data.runs[run].name}: ` : "") + label, i]);
for (const name of ["model", "first", "second"]) options(field[name], labels);
options(field.behaviour, data.behaviours.flatMap((name, i) => [[name, i], [`not: ${name}`, `!${i}`]]));
field.reward.append(...data.rewards.map((name) => new Option(name, name)));
field.stepLow.closest("fieldset").hidden = data.rows.every((row) => row.step === undefined);

let waits;
at.form.addEventListener("input", () => { clearTimeout(waits); shown.prompt = undefined; waits = setTimeout(show, 150); });
at.form.addEventListener("reset", () => { shown.prompt = undefined; setTimeout(show, 0); });
at.form.addEventListener("submit", (event) => event.preventDefault());
at.before.addEventListener("click", () => turn(shown.page - 1));
at.after.addEventListener("click", () => turn(shown.page + 1));
document.addEventListener("keydown", pressed);
at.more.open = matchMedia("(min-width: 40rem)").matches;
home.hidden = false;
show();
})();
