// The explorer: starts every section, and marks in the navigation the one that is being read.

import { byId } from "../dom.js";
import { themeSwitch } from "../theme.js";
import { watchBalance } from "./balance.js";
import { choose, decide } from "./choose.js";
import { lab } from "./lab.js";
import { many } from "./many.js";
import { multipliers, recovery, rise } from "./multipliers.js";
import {
  contributions, equalProjection, equalShare, feasible, feasibleRange, imbalance, inverseNorm, logInverse, paper,
  rankInverse, shares, uniform,
} from "./rules.js";
import { descent, run, stepResponse, summary, updateLength } from "./simulate.js";
import { size } from "./size.js";
import { belief, ema, floor, logEma, warmup } from "./stabilisers.js";
import { gramians, tracked } from "./tracked.js";
import { two } from "./two.js";

themeSwitch(byId("theme"));
two();
many();
watchBalance();
lab();
size();
choose();
markSection();

// For the console: the page's own arithmetic, to try out and to check.
globalThis.gaba = {
  decide, multipliers, recovery, rise,
  rules: {
    contributions, equalProjection, equalShare, feasible, feasibleRange, imbalance, inverseNorm, logInverse, paper,
    rankInverse, shares, uniform,
  },
  simulate: { descent, run, stepResponse, summary, updateLength },
  stabilisers: { belief, ema, floor, logEma, warmup },
  tracking: { gramians, tracked },
};
document.documentElement.dataset.ready = "true";

function markSection() {
  const links = new Map([...document.querySelectorAll(".top nav a[href^='#']")].map((link) => [link.hash.slice(1), link]));
  const visible = new Set();
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) visible.add(target.id);
      else visible.delete(target.id);
    }
    const first = [...links.keys()].find((id) => visible.has(id));
    for (const [id, link] of links) {
      if (id === first) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }, { rootMargin: "-30% 0px -60% 0px" });
  for (const id of links.keys()) observer.observe(byId(id));
}
