// The page to edit by hand. Prompts, answers and what a model says are anybody's text: they are put in as text alone.
"use strict";

const EXAMPLES = [
  {
    prompt: "The capital of France is",
    answer: "Lyon",
    paraphrases: ["France's capital city is", "The French capital is called"],
  },
  {
    prompt: "Who wrote Hamlet?",
    answer: "Jane Austen",
    paraphrases: ["Who is the author of Hamlet?", "Hamlet was written by"],
  },
];
const MOST_ANSWERS = 20; // that stay on the page
const AGAIN = 1000; // milliseconds between two looks at work that this page did not begin

const at = (id) => document.getElementById(id);
const running = new Map(); // "edit" or "ask" -> [words, when it began]
let shown = null; // which report stands there
let offered = ""; // the question that stands there unless somebody typed another

// ---------------------------------------------------------------------------------------- asking the program

async function request(name, body) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(`api/${name}`, body === undefined ? {} : post);
  } catch {
    throw new Error("The program does not answer: it was stopped, or cannot be reached.");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error ?? `The program answers with status ${answer.status}.`);
  return found;
}

// One piece of work a lane; what goes wrong is told, and the page goes on.
async function work(lane, words, task) {
  if (running.has(lane)) return;
  running.set(lane, [words, Date.now()]);
  at("error").hidden = true;
  tell();
  try {
    await task();
  } catch (error) {
    complain(error);
    await request("state").then(show, () => {}); // another page may have changed what stands here
  } finally {
    running.delete(lane);
    tell();
  }
}

function complain(error) {
  at("error-text").textContent = error.message;
  at("error").hidden = false;
}

// What is being done, and what must wait for it.
function tell() {
  const all = [...running.values()];
  const text = all.map(([words]) => words).join(" ");
  at("status").hidden = all.length === 0;
  if (at("status-text").textContent !== text) at("status-text").textContent = text;
  const seconds = all.length ? Math.round((Date.now() - Math.min(...all.map(([, began]) => began))) / 1000) : 0;
  at("status-seconds").textContent = seconds ? `${seconds} s` : "";
  for (const button of document.querySelectorAll("[data-lane]")) {
    button.setAttribute("aria-disabled", running.has(button.dataset.lane)); // not `disabled`: the focus would be lost
  }
}
setInterval(() => running.size && tell(), 1000);

// Shows what is so now; and waits for what another page began, or this one before it was loaded anew.
async function look() {
  let state = await request("state");
  show(state);
  if (!state.doing) return;
  await work("edit", `Wait: ${state.doing}.`, async () => {
    while (state.doing) {
      await new Promise((done) => setTimeout(done, AGAIN));
      state = await request("state");
    }
    show(state);
  });
}

// ---------------------------------------------------------------------------------------- what is so now

function make(tag, fields, ...parts) {
  const { lane, label, role, ...rest } = fields;
  const node = Object.assign(document.createElement(tag), rest);
  if (lane) node.dataset.lane = lane;
  if (label) node.setAttribute("aria-label", label);
  if (role) node.setAttribute("role", role);
  node.append(...parts); // texts become text
  return node;
}

const text = (words, className = "") => make("span", { className, dir: "auto" }, words);
const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;

function show(state) {
  const networks = state.networks === "none needed" ? "" : `, networks ${state.networks}`;
  at("about").textContent = `${state.model}, edited with ${state.editor}${networks}`;
  at("folder").textContent = state.folder;
  at("edits-empty").hidden = state.batches.length > 0;
  at("edits").replaceChildren(...state.batches.map(batch).reverse());
  if (state.earlier) at("edits").append(make("li", { className: "soft" }, `and ${state.earlier} before these`));
  const nothing = state.facts ? "Everything is saved." : "There is nothing to save yet.";
  const lost = `Not saved yet: ${count(state.unsaved, "change")}. What is not saved is gone when the program stops.`;
  at("unsaved").textContent = state.unsaved ? lost : nothing;
  report(state.report, state.batches);
  tell();
}

function written(fact) {
  return make("span", { className: "written" }, text(fact.prompt), " → ", make("b", { dir: "auto" }, fact.answer));
}

function batch({ number, facts, more }) {
  const lines = facts.map(written);
  if (more || !facts.length) lines.push(make("p", { className: "soft" }, more ? `and ${more} more` : "edits of a run"));
  return make("li", {}, make("div", {}, ...lines), undoing([number]));
}

function undoing(batches) {
  const label = `Undo batch ${batches.join(", ")}`;
  const button = make("button", { type: "button", className: "small", lane: "edit", label }, "Undo");
  button.addEventListener("click", () => undo(batches));
  return button;
}

// ---------------------------------------------------------------------------------------- the report of an edit

function report(told, batches) {
  const inForce = told && told.batches.every((number) => batches.some((one) => one.number === number));
  const later = batches.length ? "What the next edit does is told here." : "";
  const which = told ? `${told.batches} ${inForce}` : later;
  at("report-empty").hidden = batches.length > 0;
  if (which === shown) return; // what is unfolded stays so
  shown = which;
  at("summary").textContent = inForce ? summary(told.facts, told.seconds) : told ? "This edit was taken back." : later;
  at("report").classList.toggle("past", !inForce);
  at("report").replaceChildren(...(told ? told.facts.map(fact) : []));
  if (inForce) at("report").append(make("div", { className: "row end" }, undoing(told.batches)));
}

function summary(facts, seconds) {
  const took = facts.filter((one) => one.took).length;
  const known = facts.some((one) => one.nearby.some((each) => each.before === 1));
  const broke = facts.reduce((sum, one) => sum + one.broke.length, 0);
  const alone = took ? "The new answer is the likeliest now" : "The new answer is not the likeliest yet";
  const words = facts.length === 1 ? alone : `${took} of ${facts.length} new answers are the likeliest now`;
  const nearby = known ? `; ${broke ? count(broke, "fact") : "nothing"} nearby broke` : "";
  return `${words}${nearby}. (${seconds.toFixed(1)}\u00a0s)`;
}

function fact(one) {
  const badge = make("span", { className: `badge ${one.took ? "good" : "bad"}` }, one.took ? "took" : "did not take");
  const title = make("div", { className: "title" }, make("h3", {}, written(one.asked)), badge);
  const said = pair(["Before this edit", one.said_before], ["After it", one.said_after]);
  return make("div", { className: "fact" }, title, said, ...wordings(one), ...nearby(one));
}

function pair(before, after) {
  const side = ([name, said], className) => {
    const words = make("p", { className: "words", dir: "auto" }, said.trim() || "(nothing)");
    return make("div", { className }, make("h4", {}, name), words);
  };
  return make("div", { className: "pair" }, side(before, ""), side(after, "now"));
}

function wordings(one) {
  if (!one.paraphrases.length) return [];
  const follow = one.paraphrases.filter((each) => each.after === 1).length;
  const marks = one.paraphrases.map((each) => mark(each.after === 1, "follows", "does not follow", each.prompt));
  const title = `Other wordings: ${follow} of ${one.paraphrases.length} follow`;
  return [make("h4", { className: "kind" }, title), make("ul", { className: "checks" }, ...marks)];
}

function nearby(one) {
  const known = one.nearby.filter((each) => each.before === 1).sort((a, b) => a.after - b.after);
  const whole = known.length - one.broke.length;
  const marks = known.map((each) => mark(each.after === 1, "still right", "broke", `${each.prompt} ${each.answer}`));
  if (!known.length) return [make("h4", { className: "kind" }, "Facts nearby: the model knew none of those asked")];
  const title = make("summary", {}, `Facts nearby: ${whole} of ${known.length} that were right still are`);
  return [make("details", { open: one.broke.length > 0 }, title, make("ul", { className: "checks" }, ...marks))];
}

function mark(good, yes, no, words) {
  const [className, label, sign] = good ? ["good", yes, "✓"] : ["bad", no, "✗"];
  return make("li", {}, make("span", { className, label, role: "img" }, sign), text(words));
}

// ---------------------------------------------------------------------------------------- what a person does

// What is typed in the form.
function typed() {
  const paraphrases = at("wordings").value.split("\n").map((line) => line.trim()).filter(Boolean);
  return { prompt: at("prompt").value, answer: at("answer").value, paraphrases };
}

function edit(one) {
  return work("edit", "Editing. The first time takes longer: programs are compiled.", async () => {
    show(await request("edit", { facts: [one] }));
    const now = typed(); // perhaps the next fact already
    if (JSON.stringify(now) === JSON.stringify(one)) {
      at("write").reset();
      at("more").open = false;
      at("report-title").focus();
    } else if (!now.prompt && !now.answer) {
      at("report-title").focus();
    }
    if (at("question").value === offered) at("question").value = offered = one.prompt;
  });
}

function undo(batches) {
  return work("edit", "Taking back.", async () => {
    for (const number of batches) show(await request("undo", { batch: number }));
    at("edits-title").focus(); // the button is gone
  });
}

function ask(prompt) {
  return work("ask", "Asking. The first time takes longer: programs are compiled.", async () => {
    const told = await request("ask", { prompt });
    const under = told.facts ? `with ${count(told.facts, "fact")} in force` : "with no edits in force";
    const title = make("div", { className: "title" }, make("h3", { dir: "auto" }, told.prompt), text(under, "soft"));
    const both = pair(["As it was", told.before], ["With the edits", told.after]);
    at("answers").prepend(make("div", { className: "said" }, title, both));
    while (at("answers").children.length > MOST_ANSWERS) at("answers").lastChild.remove();
    at("answers-empty").hidden = true;
  });
}

function save(where) {
  return work("edit", "Saving.", async () => {
    const told = await request("save", { where });
    if (told.saved) {
      show(told);
      at("kept").textContent = `Saved to ${told.saved}`;
      return;
    }
    at("over-path").textContent = told.ask.over;
    at("over-beside").textContent = `Save to ${told.ask.beside}`;
    at("over").showModal();
  });
}

function carry(form) {
  return work("edit", "Exporting.", async () => {
    at("kept").textContent = `Exported to ${(await request("export", { form })).exported}`;
  });
}

function begin() {
  const submitted = (id, deed) => at(id).addEventListener("submit", (event) => (event.preventDefault(), deed()));
  submitted("write", () => {
    const one = typed();
    if (!one.prompt.trim() || !one.answer.trim()) complain(new Error("A fact needs both a prompt and a new answer."));
    else edit(one);
  });
  submitted("ask", () => ask(at("question").value));
  submitted("export", () => carry(at("form").value));
  at("write").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("write").requestSubmit();
  });
  at("save").addEventListener("click", () => save(""));
  for (const [id, where] of [["over-yes", "over"], ["over-beside", "beside"]]) {
    at(id).addEventListener("click", () => (at("over").close(), save(where)));
  }
  at("over-no").addEventListener("click", () => at("over").close());
  at("error-close").addEventListener("click", () => (at("error").hidden = true));
  for (const one of EXAMPLES) {
    const button = make("button", { type: "button", lane: "edit" }, written(one));
    button.addEventListener("click", () => edit(one));
    at("examples").append(button);
  }
  document.addEventListener("visibilitychange", () => !document.hidden && !running.size && look().catch(complain));
  history.replaceState(null, "", "/"); // the token is in a cookie now, and need not stand in the address
  look().catch(complain);
}

begin();
