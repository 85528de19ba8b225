// The stage: one video, while it is being made and afterwards, with its recipe and what can be done with it.

import * as api from "./api.js";
import * as composer from "./composer.js";
import { $, ago, copy, duration, el, fill, icon, rate, toast } from "./dom.js";

let shown = null; // the video object on the stage
let drawn = ""; // what the film shows: its id and state
let detail = null; // its recipe, once it is known
let byHand = false; // whether somebody chose it: then it stays, whatever else begins
let hooks = { onCompare: () => {}, onStage: () => {} };

export const current = () => shown;
export const film = () => $("film").querySelector("video");

export function start(given) {
  hooks = { ...hooks, ...given };
}

/** Put a video on the stage. */
export function show(video, { focus = false, chosen = byHand } = {}) {
  byHand = chosen;
  const other = shown?.id !== video.id;
  shown = video;
  if (other) {
    detail = null;
    history.replaceState(null, "", `#${video.id}`);
    hooks.onStage(video.id);
  }
  draw();
  if (focus) {
    $("stage").focus({ preventScroll: true });
    if (matchMedia("(max-width: 820px)").matches) $("stage").scrollIntoView({ block: "start" });
  }
}

/** A video that was just asked for: it takes the stage unless one is being made there. */
export function offer(video) {
  if (!shown || !unfinished(shown)) show(video, { chosen: false });
}

/** News of a video: drawn if it is the one on the stage. What begins takes the place of what is finished, unless that was chosen. */
export function update(video) {
  if (shown?.id === video.id) show(video);
  else if (video.state === "in_progress" && shown && !byHand && !unfinished(shown)) show(video);
}

const unfinished = (video) => ["queued", "paused", "in_progress"].includes(video.state);

export function preview({ id, image, step, steps }) {
  if (shown?.id !== id || shown.state !== "in_progress") return;
  const picture = $("film").querySelector("img.preview");
  if (picture) picture.src = image;
  else fill($("film"), el("figure", {}, el("img", { className: "preview", src: image, alt: "How it looks by now" }), el("figcaption", {}, "")));
  $("film").querySelector("figcaption").textContent = steps > 1 ? `step ${step} of ${steps}` : "";
}

export function clear(id) {
  if (shown?.id !== id) return;
  shown = null;
  drawn = "";
  history.replaceState(null, "", location.pathname);
  fill($("film"), el("p", { className: "empty" }, "It is gone. The next clip appears here."));
  fill($("about"));
}

export async function cancel(video = shown) {
  if (!video || !unfinished(video)) return;
  await doing(() => api.act(video.id, "cancel").then(update));
}

/** Change the clip on the stage, where an engine can. */
export function edit() {
  if (shown?.state === "completed" && composer.editor()) composer.edit(shown);
}

async function doing(what) {
  try {
    return await what();
  } catch (error) {
    toast(error.message, "bad");
    return null;
  }
}

// --- the film ---------------------------------------------------------------------------------------------------------

function draw() {
  const look = `${shown.id}:${shown.state}`;
  if (look !== drawn) {
    drawn = look;
    drawFilm();
  }
  if (shown.state === "completed") drawRecipe();
  else drawProgress();
}

async function drawFilm() {
  const words = {
    queued: "Waiting for its turn.",
    paused: "Paused. It waits until you let it go on.",
    in_progress: "It begins …",
    cancelled: "Cancelled.",
    failed: "It could not be made.",
  }[shown.state];
  if (shown.state !== "completed") return fill($("film"), el("p", { className: "empty" }, words));
  const { id, prompt } = shown;
  const place = el("video", { loop: true, muted: true, playsInline: true, autoplay: true, tabIndex: 0, aria: { label: prompt ?? id } });
  place.addEventListener("click", () => toggle(place));
  place.addEventListener("error", () => fill($("film"), el("p", { className: "empty" }, "The film could not be shown.")));
  const source = await doing(() => api.media(id, "video"));
  if (shown?.id !== id || !source) return undefined;
  place.src = source;
  return fill($("film"), place);
}

export function toggle(place = film()) {
  if (!place) return;
  if (place.paused) place.play();
  else place.pause();
}

/** One frame back or on. */
export function step(by) {
  const place = film();
  if (!place || !shown) return;
  place.pause();
  const frame = 1 / rate(shown.request.fps);
  place.currentTime = Math.min(Math.max(0, place.currentTime + by * frame), Math.max(0, place.duration - frame / 2));
}

// --- what is said of it -----------------------------------------------------------------------------------------------

function drawProgress() {
  const { state, progress, step: at, steps, eta_seconds: left, queue_position: place } = shown;
  const going = state === "in_progress" || state === "queued" || state === "paused";
  const words = {
    queued: place > 1 ? `In the queue, ${place - 1} before it` : "In the queue, next",
    paused: "Paused",
    in_progress: steps > 1 ? `Step ${at} of ${steps}` : "In the making",
    cancelled: "Cancelled",
    failed: "Failed",
  }[state];
  const meter = going && el("div", { className: "meter" },
    el("progress", { max: 100, value: progress, aria: { label: "Progress" } }),
    el("div", { className: "numbers" }, el("span", {}, words), el("span", {}, state !== "in_progress" ? "" : left === null ? `${progress} %` : `${duration(left)} left`)));
  const buttons = going
    ? [button("Cancel", () => cancel(), "bad", "x"),
      state === "paused" ? button("Go on", () => doing(() => api.act(shown.id, "resume").then(update))) : state === "queued" && button("Pause", () => doing(() => api.act(shown.id, "pause").then(update)))]
    : [button("Try again", () => doing(() => api.act(shown.id, "retry").then(update))), button("Reuse", () => composer.reuse(shown)), button("Delete", () => removal(shown), "bad")];
  settle(
    el("h2", { className: "title" }, shown.prompt ?? shown.id),
    meter || el("p", { className: "status" }, words),
    shown.error && state === "failed" && el("p", { className: "warning bad" }, shown.error.message),
    ...warnings(),
    facts(),
    el("div", { className: "actions" }, ...buttons.filter(Boolean)),
  );
}

function drawRecipe() {
  const video = shown;
  const canExtend = Boolean(composer.extender());
  const canEdit = Boolean(composer.editor());
  const command = el("div", { className: "command", hidden: !detail?.command },
    el("code", { tabIndex: 0, aria: { label: "The command that makes it again" } }, ...whole(detail?.command ?? "")),
    el("button", { type: "button", className: "quiet", title: "Copy the command", aria: { label: "Copy the command" }, on: { click: () => copy(detail.command) } }, icon("copy")));
  settle(
    el("h2", { className: "title" }, video.prompt ?? video.id),
    ...warnings(),
    facts(),
    el("div", { className: "actions" },
      button("Reuse", () => composer.reuse(video)),
      button("Remix", () => composer.remix(video)),
      canEdit && button("Edit", edit, "", "e", "Change it by a sentence or an instruction (e)"),
      canExtend && button("Extend", () => composer.extend(video)),
      button("Compare", () => hooks.onCompare(video)),
      button("mp4", () => download(video, "video", "mp4"), "", "", `Download as mp4`),
      button("gif", () => download(video, "gif", "gif"), "", "", `Download as gif`),
      button("Delete", () => removal(video), "bad")),
    command,
  );
  if (!detail) {
    const { id } = video;
    api.recipe(id).then((said) => {
      if (shown?.id !== id) return;
      detail = said;
      drawRecipe();
    }, () => {});
  }
}

/** A command, broken into lines only between its words: never inside --seed. */
const whole = (command) => command.split(" ").flatMap((word) => [el("span", {}, word), " "]);

/** Draw what is said, and leave the focus on the button that had it. */
function settle(...children) {
  const held = $("about").contains(document.activeElement) ? document.activeElement.textContent : null;
  fill($("about"), ...children);
  if (held !== null) [...$("about").querySelectorAll("button")].find((one) => one.textContent === held)?.focus();
}

function button(words, act, kind = "", key = "", title = "") {
  return el("button", { type: "button", className: `quiet ${kind}`, title: title || (key && `${words} (${key})`), on: { click: act } }, words);
}

function warnings() {
  return (shown.warnings ?? []).map((words) => el("p", { className: "warning" }, words));
}

/** The recipe as pairs of words; also what two clips are compared by. */
export function recipe(video) {
  const { seed, width, height, frames, fps, options = {} } = video.request;
  const said = { engine: video.model, seed, size: `${width} × ${height}`, length: `${frames} frames at ${fps} a second, ${duration(frames / rate(fps))}` };
  for (const [name, value] of Object.entries(options)) {
    if (value !== "" && !/^(start|source)(_sha256)?$/.test(name)) said[name.replaceAll("_", " ")] = plain(value);
  }
  return said;
}

const plain = (value) => ({ true: "yes", false: "no" }[value] ?? (typeof value === "object" ? JSON.stringify(value) : String(value)));

function facts() {
  const { media, kind, created_at: created } = shown;
  const said = { ...recipe(shown) };
  if (media) said.made = `in ${duration(media.generation_seconds)} on ${media.device}, ${ago(created)}`;
  else said.asked = ago(created);
  const rows = Object.entries(said).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]);
  if (shown.remixed_from_video_id) {
    const from = el("a", { href: `#${shown.remixed_from_video_id}` }, "another clip");
    rows.push(el("dt", {}, { extend: "goes on from", edit: "changed from" }[kind] ?? "remix of"), el("dd", {}, from));
  }
  return el("dl", { className: "facts" }, ...rows);
}

async function download(video, variant, suffix) {
  const source = await doing(() => api.file(video.id, variant));
  if (!source) return;
  const words = (video.prompt ?? "clip").toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 48).replace(/^-|-$/g, "");
  const link = el("a", { href: source, download: `${words || "clip"}-${video.seed}.${suffix}` });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(source), 60000);
}

async function removal(video) {
  await doing(() => api.remove(video.id).then(() => hooks.onDeleted?.(video.id)));
}
