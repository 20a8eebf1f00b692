// Light, dark, or as the system says. Shared by every page; plots redraw on the "themechange" event.

const CHOICES = ["system", "light", "dark"];
const KEY = "gaba-theme";

function stored() {
  try {
    const choice = localStorage.getItem(KEY);
    return CHOICES.includes(choice) ? choice : "system";
  } catch {
    return "system"; // a page without storage follows the system
  }
}

function apply(choice) {
  if (choice === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
  document.dispatchEvent(new CustomEvent("themechange", { detail: choice }));
}

/** Puts the choice of theme into `mount`: three radio buttons in a group named "Theme". */
export function themeSwitch(mount) {
  const group = document.createElement("fieldset");
  group.className = "segmented";
  const legend = document.createElement("legend");
  legend.className = "visually-hidden";
  legend.textContent = "Theme";
  group.append(legend);
  const now = stored();
  for (const choice of CHOICES) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    const text = document.createElement("span");
    Object.assign(input, { type: "radio", name: "theme", value: choice, checked: choice === now });
    text.textContent = choice === "system" ? "Auto" : choice[0].toUpperCase() + choice.slice(1);
    input.addEventListener("change", () => {
      try {
        localStorage.setItem(KEY, choice);
      } catch {
        // then it holds until the page is left
      }
      apply(choice);
    });
    label.append(input, text);
    group.append(label);
  }
  mount.replaceChildren(group);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => apply(stored()));
  apply(now);
}

/** The colour that a token such as "--task-1" has now, as rgb(); canvases cannot read tokens. */
export function colour(token) {
  const probe = document.createElement("span");
  probe.style.color = `var(${token})`;
  probe.hidden = true;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}
