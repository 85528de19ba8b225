// Two lists: the queue, with what waits and what runs, and the archive with its filters.

import * as api from "./api.js";
import { $, ago, duration, el, icon, toast } from "./dom.js";

const WAITING = ["in_progress", "queued", "paused"];
const PAGE = 24;

const jobs = new Map(); // what is not finished, by id
const rows = new Map(); // its row in the queue
const cards = new Map(); // what is in the archive, as far as it was loaded: id -> {video, card}
let order = []; // ids, next first
let paused = false;
let hooks = {};
let asking = null; // the request for the archive that is on its way
let soon = 0;
let last = null; // the last id that was loaded, where there are more

export function start(given, engines) {
  hooks = given;
  $("filter-engine").append(...engines.map((engine) => el("option", { value: engine.id }, engine.id)));
  for (const id of ["filter-engine", "filter-status", "filter-order"]) $(id).addEventListener("change", () => load());
  $("search").addEventListener("input", () => later(250));
  $("more").addEventListener("click", () => load(last));
  $("queue-pause").addEventListener("click", pauseAll);
  $("grid").addEventListener("keydown", move);
}

const doing = (what) => what().catch((error) => toast(error.message, "bad"));

// --- the queue --------------------------------------------------------------------------------------------------------

/** Everything anew, after the page was opened or the connection was lost. */
export async function refresh() {
  const [waiting, running, said] = await Promise.all([
    api.list({ status: "queued", limit: 100 }), api.list({ status: "in_progress", limit: 100 }), api.queue(),
  ]);
  jobs.clear();
  for (const video of [...waiting.data, ...running.data]) jobs.set(video.id, video);
  tell(said);
  await load();
}

function tell(said) {
  order = said.order ?? [];
  paused = said.paused;
  drawQueue();
}

/** Where the places in the queue may have changed. */
async function askOrder() {
  await api.queue().then(tell, () => {});
}

export function update(video) {
  const known = jobs.get(video.id);
  if (WAITING.includes(video.state)) {
    jobs.set(video.id, video);
    if (!known || known.state !== video.state) askOrder();
  } else {
    jobs.delete(video.id);
    if (known || !cards.has(video.id)) later(120);
    if (known) askOrder();
  }
  drawQueue();
}

export function forget(id) {
  jobs.delete(id);
  cards.get(id)?.card.remove();
  cards.delete(id);
  drawQueue();
  drawEmpty();
}

function drawQueue() {
  const place = (video) => (video.state === "in_progress" ? -1 : order.includes(video.id) ? order.indexOf(video.id) : 1e6 + video.created_at);
  const sorted = [...jobs.values()].sort((one, other) => place(one) - place(other) || one.created_at - other.created_at);
  $("queue").hidden = sorted.length === 0 && !paused;
  $("queue-count").textContent = sorted.length ? String(sorted.length) : "";
  $("queue-pause").textContent = paused ? "Go on" : "Pause";
  $("queue-pause").setAttribute("aria-pressed", String(paused));
  for (const [id, row] of rows) {
    if (!jobs.has(id)) {
      row.place.remove();
      rows.delete(id);
    }
  }
  sorted.forEach((video, index) => {
    const row = rows.get(video.id) ?? makeRow(video);
    row.draw(video, index);
    if ($("queue-rows").children[index] !== row.place) $("queue-rows").insertBefore(row.place, $("queue-rows").children[index] ?? null);
  });
}

function makeRow(video) {
  const { id } = video;
  const what = el("button", { type: "button", className: "what", on: { click: () => hooks.onOpen(jobs.get(id)) } }, video.prompt ?? id);
  const when = el("span", { className: "when" });
  const meter = el("progress", { max: 100, aria: { label: "Progress" } });
  const act = (name, words, call) => el("button", { type: "button", className: "quiet", title: words, aria: { label: `${words}: ${video.prompt}` }, on: { click: () => doing(() => call().then((said) => { if (said?.object === "video") { update(said); hooks.onUpdate(said); } askOrder(); })) } }, icon(name));
  const up = act("up", "Make it next", () => api.act(id, "move", { to: "front" }));
  const stop = act("pause", "Pause", () => api.act(id, "pause"));
  const go = act("play", "Go on", () => api.act(id, "resume"));
  const cancel = act("close", "Cancel", () => api.act(id, "cancel"));
  const row = el("li", { className: "row" }, what, when, el("div", { className: "buttons" }, up, stop, go, cancel), meter);
  const made = {
    place: row,
    draw(now, index) {
      when.textContent = said(now);
      meter.value = now.progress;
      meter.hidden = now.state !== "in_progress";
      up.hidden = now.state !== "queued" || order[0] === id || index === 0;
      stop.hidden = now.state !== "queued";
      go.hidden = now.state !== "paused";
    },
  };
  rows.set(id, made);
  return made;
}

function said(video) {
  const left = video.eta_seconds === null ? "" : `about ${duration(video.eta_seconds)}`;
  if (video.state === "in_progress") return [video.steps > 1 ? `step ${video.step} of ${video.steps}` : "in the making", left && `${left} left`, video.model].filter(Boolean).join(" · ");
  if (video.state === "paused") return `paused · ${video.model}`;
  const place = order.indexOf(video.id) + 1;
  return [place === 1 ? "next" : place ? `number ${place}` : "queued", left && `${left} until it is done`, video.model].filter(Boolean).join(" · ");
}

const pauseAll = () => doing(() => api.ask(`/v1/queue/${paused ? "resume" : "pause"}`, { method: "POST", json: {} }).then(askOrder));

// --- the archive ------------------------------------------------------------------------------------------------------

function filters() {
  return { status: $("filter-status").value, model: $("filter-engine").value, order: $("filter-order").value, q: $("search").value.trim() };
}

function later(pause) {
  clearTimeout(soon);
  soon = setTimeout(() => load(), pause);
}

/** The first page, or the one after an id. Cards that stay are not made again, so that focus and films survive. */
async function load(after = null) {
  asking?.abort();
  asking = new AbortController();
  let page;
  try {
    page = await api.list({ ...filters(), after, limit: after ? PAGE : Math.min(100, Math.max(PAGE, cards.size)) }, asking.signal);
  } catch (error) {
    if (error.name !== "AbortError") toast(error.message, "bad");
    return;
  }
  if (!after) {
    const wanted = new Set(page.data.map((video) => video.id));
    for (const [id, { card }] of cards) {
      if (!wanted.has(id)) {
        card.remove();
        cards.delete(id);
      }
    }
  }
  const first = after ? $("grid").children.length : 0;
  page.data.forEach((video, index) => {
    const { card } = cards.get(video.id) ?? makeCard(video);
    if ($("grid").children[first + index] !== card) $("grid").insertBefore(card, $("grid").children[first + index] ?? null);
  });
  last = page.has_more ? page.last_id : null;
  $("more").hidden = !page.has_more;
  drawEmpty();
  rove();
}

function drawEmpty() {
  const asked = filters();
  $("gallery-empty").hidden = cards.size > 0;
  $("gallery-empty").textContent = asked.q || asked.model || asked.status !== "completed" ? "Nothing here fits." : "Nothing here yet: clips stay here when they are done.";
}

function makeCard(video) {
  const { id } = video;
  const finished = video.state === "completed";
  const picture = el("span", { className: "picture" }, finished ? null : video.state === "cancelled" ? "cancelled" : "failed");
  const open = el("button", { type: "button", className: "open", tabIndex: -1, data: { id }, on: { click: () => hooks.onOpen(cards.get(id).video) } },
    picture,
    el("span", { className: "words" }, el("span", { className: "says" }, video.prompt ?? id), el("span", { className: "small" }, `${video.model} · ${ago(video.created_at)}`)));
  const box = el("input", { type: "checkbox", tabIndex: -1, aria: { label: `Compare: ${video.prompt}` }, on: { change: () => hooks.onMark(video, box.checked) } });
  const card = el("li", { className: "card" }, open, finished && el("label", { className: "mark", title: "Compare (c)" }, box));
  if (finished) {
    api.media(id, "thumbnail").then((url) => picture.append(el("img", { src: url, alt: "", loading: "lazy", decoding: "async" })), () => { picture.textContent = "no picture"; });
    if (matchMedia("(hover: hover) and (prefers-reduced-motion: no-preference)").matches) livens(open, picture, id);
  }
  cards.set(id, { video, card, box });
  return cards.get(id);
}

/** A card plays while the pointer is on it. */
function livens(open, picture, id) {
  let film = null;
  const end = () => { film?.remove(); film = null; };
  open.addEventListener("pointerenter", async () => {
    const wanted = el("video", { muted: true, loop: true, playsInline: true, autoplay: true });
    film = wanted;
    const url = await api.media(id, "video").catch(() => null);
    if (url && film === wanted) {
      wanted.src = url;
      picture.append(wanted);
    }
  });
  open.addEventListener("pointerleave", end);
}

/** Which cards are ticked. */
export function marked(ids) {
  for (const [id, { box }] of cards) box.checked = ids.includes(id);
}

export function highlight(id) {
  for (const [name, { card }] of cards) card.dataset.chosen = String(name === id);
}

export function focusGrid() {
  ($("grid").querySelector('.open[tabindex="0"]') ?? $("search")).focus();
}

// One card takes part in the order of Tab; arrows move between them.

const openers = () => [...$("grid").querySelectorAll(".open")];

function rove(to = null) {
  const all = openers();
  const now = to ?? all.find((one) => one.tabIndex === 0) ?? all[0];
  for (const one of all) one.tabIndex = one === now ? 0 : -1;
  return now;
}

function move(event) {
  const all = openers();
  const at = all.indexOf(event.target);
  if (at < 0) return;
  const top = all[0].parentElement.offsetTop;
  const across = Math.max(1, all.filter((one) => one.parentElement.offsetTop === top).length);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + across, ArrowUp: at - across, Home: 0, End: all.length - 1 }[event.key];
  if (to !== undefined && all[to]) {
    event.preventDefault();
    rove(all[to]).focus();
  } else if (event.key === "c") {
    const known = cards.get(event.target.dataset.id);
    if (known?.video.state === "completed") known.box.click();
  }
}
