// The live page: which runs are shown, and the stream of events that they come in.

import { byId, h, say } from "../dom.js";
import { themeSwitch } from "../theme.js";
import { Panel } from "./panel.js";

const MOST = 4;
const MANY = 8;
const panels = new Map();
let names = [];
let source = null;
let last = "";
let waiting = null;

themeSwitch(byId("theme"));

// --- the stream ----------------------------------------------------------------------------------

function connection(text, look) {
  say(byId("connection"), text);
  byId("connection").className = `badge ${look}`;
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
    // The browser does not ask again for a stream that was refused.
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
  const note = byId("chooser-note");
  note.hidden = found.length > 0;
  note.textContent = byId("folder").dataset.none
    ? "You gave no folder: start with `gaba web RUN_OR_FOLDER`."
    : "There is no record yet. A run appears here as soon as it writes its history.jsonl.";
  byId("filter-field").hidden = found.length <= MANY;
  offer();
  if (found.length && !panels.size) choose([found[0]]);
}

function offer() {
  const wanted = byId("filter").value.trim().toLowerCase();
  const full = panels.size >= MOST;
  const field = byId("names");
  const focused = document.activeElement?.value;
  const choices = names
    .filter((name) => panels.has(name) || name.toLowerCase().includes(wanted))
    .map((name) => {
      const chosen = panels.has(name);
      const box = h("input", { type: "checkbox", value: name, checked: chosen, disabled: full && !chosen, onchange: () => {
        const others = [...panels.keys()].filter((other) => other !== name);
        choose(box.checked ? [...others, name] : others);
      } });
      return h("label", { class: "choice" }, box, h("span", {}, name.replace(/\/?history\.jsonl$/, "") || name));
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
      byId("runs").append(panel.element);
    }
  }
  byId("runs").dataset.count = panels.size;
  const query = new URLSearchParams(chosen.map((name) => ["run", name]));
  history.replaceState(null, "", chosen.length ? `?${query}` : location.pathname);
  offer();
  listen();
}

// --- begin ---------------------------------------------------------------------------------------

byId("filter").addEventListener("input", offer);
const told = await (await fetch("/api/runs")).json();
byId("folder").textContent = told.folder ?? "no folder";
if (told.folder === null) byId("folder").dataset.none = "yes";
const asked = new URLSearchParams(location.search).getAll("run");
const known = asked.filter((name) => told.runs.includes(name)).slice(0, MOST);
if (known.length) {
  names = told.runs;
  choose(known);
} else {
  listen();
}
