// Making elements, and small words that several parts of the page use. Text is set as text: nothing here parses HTML.

export const $ = (id) => document.getElementById(id);

/** An element with properties and children; `on` holds listeners, `data` the dataset, `aria` its attributes. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  const { on = {}, data = {}, aria = {}, ...rest } = properties;
  for (const [name, value] of Object.entries(rest)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  for (const [name, value] of Object.entries(data)) made.dataset[name] = value;
  for (const [name, value] of Object.entries(aria)) made.setAttribute(`aria-${name}`, value);
  for (const [name, listener] of Object.entries(on)) made.addEventListener(name, listener);
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const made = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  made.setAttribute("class", "icon");
  made.setAttribute("aria-hidden", "true");
  made.append(use);
  return made;
}

/** Replace what is in a place, but leave it alone where it looks the same: focus and films survive. */
export function fill(place, ...children) {
  place.replaceChildren(...children.filter(Boolean));
}

export function toast(words, kind = "") {
  const made = el("p", { className: `toast ${kind}` }, words);
  $("toasts").append(made);
  setTimeout(() => made.remove(), kind === "bad" ? 8000 : 3500);
}

/** 41 ms, 4.2 s, 3 min, 2 h */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 0.95) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export function ago(moment) {
  const seconds = Date.now() / 1000 - moment;
  if (seconds < 45) return "just now";
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return new Date(moment * 1000).toLocaleDateString();
}

/** "29.97" and "30000/1001" as a number. */
export function rate(fps) {
  const [above, below = "1"] = String(fps).split("/");
  return Number(above) / Number(below);
}

export async function copy(words) {
  try {
    await navigator.clipboard.writeText(words);
  } catch {
    // Only pages from this machine or with https have a clipboard; the old way works everywhere.
    const place = el("textarea", { value: words });
    (document.querySelector("dialog[open]") ?? document.body).append(place);
    place.select();
    document.execCommand("copy");
    place.remove();
  }
  toast("Copied");
}

/** What the browser remembers; a browser that forbids it forgets. */
export const memory = {
  get(name) {
    try {
      return JSON.parse(localStorage.getItem(`kinetograph.${name}`));
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`kinetograph.${name}`, JSON.stringify(value));
    } catch { /* private windows may refuse */ }
  },
};
