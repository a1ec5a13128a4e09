"use strict";

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// ---- tables: a button in each header sorts, a field above long ones filters ---------------------

const sortKey = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v);
};

function compareKeys(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === typeof b) return a.localeCompare(b, undefined, { numeric: true });
  return 0;
}

function sortTable(header, direction) {
  const table = header.closest("table"), body = table.tBodies[0];
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  const rows = [...body.rows].map((row) => [sortKey(row, header.cellIndex), row]);
  const numeric = rows.some(([key]) => typeof key === "number");
  // What has no number stays at the end, whichever way.
  const known = rows.filter(([key]) => !numeric || typeof key === "number");
  const unknown = rows.filter(([key]) => numeric && typeof key !== "number");
  known.sort((a, b) => direction * compareKeys(a[0], b[0]));
  body.append(...[...known, ...unknown].map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const header of table.tHead.rows[0].querySelectorAll("th")) {
    const button = make("button", { type: "button" }, ...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const now = header.getAttribute("aria-sort");
      const first = header.classList.contains("number") ? -1 : 1;
      sortTable(header, now === null ? first : now === "ascending" ? -1 : 1);
    });
  }
  if (table.tBodies[0].rows.length > 15) {
    const field = make("input", { type: "search", placeholder: "find a row" });
    field.setAttribute("aria-label", "find a row");
    field.addEventListener("input", () => {
      const wanted = field.value.toLowerCase();
      for (const row of table.tBodies[0].rows) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
      }
    });
    table.closest(".scroll").before(make("p", { className: "find" }, field));
  }
}

// ---- the browser of completions -----------------------------------------------------------------

const PAGE = 30;

function startBrowser(data) {
  const form = document.getElementById("filters"), fields = form.elements;
  const list = document.getElementById("pairs"), more = document.getElementById("more");
  const found = document.getElementById("found");
  let matching = [], shown = 0, problem = null;

  const kindOf = (pair) => data.questions[pair.question].kind;
  const wordsOf = (kind) => data.kinds.find((one) => one.name === kind).outcomes;
  const outcome = (pair, policy) => {
    const answer = pair.answers[policy];
    const value = answer && answer[kindOf(pair) === "role_play" ? "in_style" : "correct"];
    return value === null ? null : Number(value);
  };
  const before = () => Number(fields.before.value), after = () => Number(fields.after.value);
  const change = (pair) => {
    const a = outcome(pair, before()), b = outcome(pair, after());
    if (a === null || b === null) return "";
    return [["never", "improved"], ["regressed", "kept"]][a][b];
  };
  const personaChoice = (persona) => (persona === null ? "-" : "+" + persona);
  const personaName = (persona) => (persona === null ? "no persona" : persona);
  const several = data.policies.length > 1;

  const OUTCOMES = {
    "": () => true,
    changed: (pair) => ["improved", "regressed"].includes(change(pair)),
    improved: (pair) => change(pair) === "improved",
    regressed: (pair) => change(pair) === "regressed",
    kept: (pair) => change(pair) === "kept",
    never: (pair) => change(pair) === "never",
    good: (pair) => outcome(pair, after()) === 1,
    bad: (pair) => outcome(pair, after()) === 0,
    flips: (pair) => data.questions[pair.question].flips[after()],
  };

  function option(select, value, text) {
    select.append(make("option", { value, textContent: text }));
  }

  function fillFields() {
    for (const kind of data.kinds) option(fields.kind, kind.name, kind.name.replace("_", "-"));
    data.policies.forEach((name, i) => {
      option(fields.before, i, name);
      option(fields.after, i, name);
    });
    fields.after.value = data.policies.length - 1;
    fields.kind.parentElement.hidden = data.kinds.length < 2;
    fields.before.parentElement.hidden = data.policies.length < 3;
    fields.after.parentElement.hidden = data.policies.length < 3;
    option(fields.persona, "", "any");
    const personas = new Set(data.pairs.map((pair) => pair.persona));
    for (const persona of [...personas].sort((a, b) => (a === null ? -1 : b === null ? 1 : 0))) {
      option(fields.persona, personaChoice(persona), personaName(persona));
    }
    fillOutcomes();
  }

  function fillOutcomes() {
    const [good, bad] = wordsOf(fields.kind.value), chosen = fields.outcome.value;
    const names = several
      ? {
          changed: "flipped either way",
          improved: `improved: ${bad} → ${good}`,
          regressed: `regressed: ${good} → ${bad}`,
          kept: `${good} in both`,
          never: `${bad} in both`,
        }
      : { good, bad };
    names.flips = "differs between personas" + (several ? ` (${data.policies[after()]})` : "");
    fields.outcome.replaceChildren();
    option(fields.outcome, "", "any");
    for (const [value, text] of Object.entries(names)) option(fields.outcome, value, text);
    fields.outcome.value = chosen;
  }

  function matches(pair) {
    const question = data.questions[pair.question];
    if (question.kind !== fields.kind.value) return false;
    if (problem !== null && question.problem !== problem) return false;
    if (fields.persona.value && fields.persona.value !== personaChoice(pair.persona)) return false;
    if (!OUTCOMES[fields.outcome.value](pair)) return false;
    const wanted = fields.text.value.toLowerCase();
    const texts = [question.prompt, ...pair.answers.map((answer) => (answer ? answer.completion : ""))];
    return !wanted || texts.some((text) => text.toLowerCase().includes(wanted));
  }

  function side(pair, policy) {
    const answer = pair.answers[policy], [good, bad] = wordsOf(kindOf(pair));
    const marks = make("p", { className: "marks" }, make("b", {}, data.policies[policy]));
    const result = make("div", { className: `side s${policy % 8}` }, marks);
    if (!answer) {
      marks.append(make("span", { className: "no" }, "not asked"));
      return result;
    }
    const say = (value, yes, no) => {
      if (value !== null) {
        const text = value ? `✓ ${yes}` : `✗ ${no}`;
        marks.append(make("span", { className: value ? "yes" : "no" }, text));
      }
    };
    say(outcome(pair, policy), good, bad);
    if (kindOf(pair) !== "role_play") say(answer.in_style, "in style", "off style");
    if (answer.truncated) marks.append(make("span", { className: "no" }, "truncated"));
    result.append(make("pre", { textContent: answer.completion, tabIndex: 0 }));
    return result;
  }

  function questionCard(question) {
    const title = make("header", {}, make("b", {}, question.problem));
    const say = (text) => title.append(make("span", { className: "quiet" }, text));
    if (question.answer) say(`answer: ${question.answer}`);
    if (question.sample) say(`sample ${question.sample}`);
    const all = make("button", { type: "button", textContent: "every persona" });
    all.addEventListener("click", () => {
      problem = question.problem;
      fields.persona.value = fields.outcome.value = fields.text.value = "";
      update();
      writeHash();
      document.getElementById("completions").scrollIntoView();
    });
    if (fields.persona.value || fields.outcome.value || fields.text.value) title.append(all);
    const prompt = make("p", { className: "prompt", textContent: question.prompt });
    return make("article", { className: "question" }, title, prompt);
  }

  function row(pair) {
    const title = make("h3", {}, personaName(pair.persona));
    const name = several ? change(pair) : "";
    if (["improved", "regressed"].includes(name)) {
      title.append(make("span", { className: "quiet" }, ` ${name}`));
    }
    return make("div", { className: "pair" }, title, make("div", { className: "sides" },
      ...data.policies.map((_, i) => side(pair, i))));
  }

  function showMore() {
    for (const pair of matching.slice(shown, shown + PAGE)) {
      if (shown === 0 || matching[shown - 1].question !== pair.question) {
        list.append(questionCard(data.questions[pair.question]));
      }
      list.lastChild.append(row(pair));
      shown += 1;
    }
    more.hidden = shown === matching.length;
    found.textContent = `${matching.length} found, ${shown} shown`;
  }

  function update() {
    fillOutcomes();
    fields.problem.hidden = problem === null;
    fields.problem.textContent = `question ${problem} ✕`;
    matching = data.pairs.filter(matches);
    shown = 0;
    list.replaceChildren();
    showMore();
  }

  function readHash() {
    const [name, query] = location.hash.slice(1).split("?");
    if (name !== "completions" || query === undefined) return;
    const wanted = new URLSearchParams(query);
    problem = wanted.get("problem");
    for (const field of ["kind", "persona", "outcome", "text"]) {
      fields[field].value = wanted.get(field) ?? (field === "kind" ? data.kinds[0].name : "");
    }
    update();
    document.getElementById("completions").scrollIntoView();
  }

  function writeHash() {
    const wanted = new URLSearchParams();
    for (const field of ["kind", "persona", "outcome", "text"]) {
      if (fields[field].value) wanted.set(field, fields[field].value);
    }
    if (problem !== null) wanted.set("problem", problem);
    history.replaceState(null, "", `#completions?${wanted}`);
  }

  fillFields();
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    update();
    writeHash();
  });
  fields.problem.addEventListener("click", () => {
    problem = null;
    update();
    writeHash();
  });
  more.addEventListener("click", showMore);
  window.addEventListener("hashchange", readHash);
  update();
  readHash();
}

const embedded = document.getElementById("data");
if (embedded) startBrowser(JSON.parse(embedded.textContent));

function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  const details = target && target.querySelector("details");
  if (details) details.open = true;
}
window.addEventListener("hashchange", openTarget);
openTarget();
