// The live page: which runs are shown, and the stream of events that they come in.

import { themeSwitch } from "/static/theme.js";
import { Panel } from "./panel.js";
import { make } from "./text.js";

const MOST = 4;
const MANY = 8;
const place = (id) => document.getElementById(id);
const panels = new Map();
let names = [];
let source = null;
let last = "";
let waiting = null;

themeSwitch(place("theme"));
document.addEventListener("themechange", () => panels.forEach((panel) => panel.repaint()));

// --- the stream ----------------------------------------------------------------------------------

function connection(text, look) {
  const badge = place("connection");
  if (badge.textContent !== text) badge.textContent = text;
  badge.className = `badge ${look}`;
}

/** Follows the chosen runs; `from` is the last event that they were told. */
function listen(from = "") {
  clearTimeout(waiting);
  source?.close();
  last = from;
  const query = new URLSearchParams([...panels.keys()].map((name) => ["run", name]));
  if (from) query.set("last", from);
  const mine = new EventSource(`/api/stream?${query}`);
  source = mine;
  mine.onopen = () => connection("connected", "good");
  mine.onerror = () => {
    if (source !== mine) return;
    connection("no connection: trying again", "warn");
    // A stream that was refused is not begun anew by itself.
    if (mine.readyState === EventSource.CLOSED) waiting = setTimeout(() => listen(last), 2000);
  };
  mine.addEventListener("runs", (event) => list(JSON.parse(event.data)));
  mine.addEventListener("run", (event) => {
    if (source !== mine) return;
    last = event.lastEventId;
    const told = JSON.parse(event.data);
    panels.get(told.run)?.take(told);
    requestAnimationFrame(draw);
  });
}

function draw() {
  for (const panel of panels.values()) panel.draw();
}

// --- which runs ----------------------------------------------------------------------------------

function list(found) {
  names = found;
  const note = place("chooser-note");
  note.hidden = found.length > 0;
  note.textContent = place("folder").dataset.none
    ? "No folder was given: start with `gaba web RUN_OR_FOLDER`."
    : "There is no record yet. One appears here as soon as a run begins to write its history.jsonl.";
  place("filter-field").hidden = found.length <= MANY;
  offer();
  const chosen = [...panels.keys()].filter((name) => found.includes(name));
  if (!chosen.length && found.length && !panels.size) choose([found[0]]);
}

function offer() {
  const wanted = place("filter").value.trim().toLowerCase();
  const full = panels.size >= MOST;
  const field = place("names");
  const focused = document.activeElement?.value;
  const choices = names
    .filter((name) => panels.has(name) || name.toLowerCase().includes(wanted))
    .map((name) => {
      const box = make("input", { type: "checkbox", value: name, checked: panels.has(name), disabled: full && !panels.has(name) });
      box.addEventListener("change", () => {
        const chosen = [...panels.keys()].filter((other) => other !== name);
        choose(box.checked ? [...chosen, name] : chosen);
      });
      return make("label", { className: "choice" }, box, make("span", {}, name.replace(/\/?history\.jsonl$/, "") || name));
    });
  field.replaceChildren(field.querySelector("legend"), ...choices);
  if (focused) field.querySelector(`input[value="${CSS.escape(focused)}"]`)?.focus();
}

function choose(chosen) {
  for (const [name, panel] of panels) {
    if (!chosen.includes(name)) {
      panel.destroy();
      panels.delete(name);
    }
  }
  for (const name of chosen) {
    if (!panels.has(name)) {
      const panel = new Panel(name, () => listen());
      panels.set(name, panel);
      place("runs").append(panel.element);
    }
  }
  place("runs").dataset.count = panels.size;
  const query = new URLSearchParams(chosen.map((name) => ["run", name]));
  history.replaceState(null, "", chosen.length ? `?${query}` : location.pathname);
  offer();
  listen();
}

// --- begin ---------------------------------------------------------------------------------------

place("filter").addEventListener("input", offer);
const told = await (await fetch("/api/runs")).json();
place("folder").textContent = told.folder ?? "no folder";
if (told.folder === null) place("folder").dataset.none = "yes";
const asked = new URLSearchParams(location.search).getAll("run");
const known = asked.filter((name) => told.runs.includes(name)).slice(0, MOST);
if (known.length) {
  names = told.runs;
  choose(known);
} else {
  listen();
}
