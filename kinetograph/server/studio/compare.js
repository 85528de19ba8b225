// Two clips side by side, in step: one clock moves both, and what differs in their recipes is marked.

import * as api from "./api.js";
import { $, el, fill, icon, rate, toast } from "./dom.js";
import { recipe } from "./stage.js";

const DRIFT = 0.04; // seconds that the two may be apart while they play

let marks = []; // the videos that were marked, two at most
let films = [];
let frame = 0.1; // seconds
let onChange = () => {};

export function start(changed) {
  onChange = changed;
  $("tray-compare").addEventListener("click", open);
  $("tray-clear").addEventListener("click", () => { marks = []; tell(); });
  $("compare-play").addEventListener("click", toggle);
  $("compare-time").addEventListener("input", () => { const wanted = Number($("compare-time").value); pause(); seek(wanted); });
  $("compare").addEventListener("close", () => { pause(); films = []; fill($("pair")); });
  $("compare").addEventListener("keydown", (event) => {
    if (event.target.tagName === "BUTTON" && event.key === " ") return;
    if (event.key === " ") { event.preventDefault(); toggle(); }
    if (event.key === "," || event.key === ".") { pause(); seek(now() + (event.key === "." ? frame : -frame)); }
  });
}

/** Mark or unmark a video; the third drives out the first. */
export function mark(video, on = true) {
  marks = marks.filter((one) => one.id !== video.id);
  if (on) marks = [...marks, video].slice(-2);
  tell();
}

export function unmark(id) {
  if (marks.some((one) => one.id === id)) mark({ id }, false);
}

function tell() {
  $("tray").hidden = marks.length === 0;
  $("tray-words").textContent = marks.length === 1 ? "Choose one more clip" : "Two clips chosen";
  $("tray-compare").disabled = marks.length !== 2;
  onChange(marks.map((one) => one.id));
}

export async function open() {
  if (marks.length !== 2) return;
  const pair = marks;
  let urls;
  try {
    urls = await Promise.all(pair.map((video) => api.media(video.id, "video")));
  } catch (error) {
    toast(error.message, "bad");
    return;
  }
  films = urls.map((src, index) => el("video", { src, muted: true, playsInline: true, preload: "auto", aria: { label: pair[index].prompt ?? pair[index].id } }));
  fill($("pair"), ...films.map((film, index) => el("figure", {}, film, el("figcaption", {}, pair[index].prompt ?? pair[index].id))));
  frame = 1 / Math.max(...pair.map((video) => rate(video.request.fps)));
  drawRecipes(pair);
  $("compare").showModal();
  await Promise.all(films.map((film) => new Promise((done) => { film.readyState >= 1 ? done() : film.addEventListener("loadedmetadata", done, { once: true }); film.addEventListener("error", done, { once: true }); })));
  if (!films.length) return;
  $("compare-time").max = length();
  $("compare-time").step = frame / 10;
  seek(0);
  play();
}

const length = () => Math.max(...films.map((film) => film.duration || 0));
const leader = () => films.reduce((one, other) => ((other.duration || 0) > (one.duration || 0) ? other : one));
const now = () => (films.length ? leader().currentTime : 0);

function seek(time) {
  const at = Math.min(Math.max(0, time), Math.max(0, length() - frame / 2));
  for (const film of films) film.currentTime = Math.min(at, Math.max(0, (film.duration || 0) - frame / 2));
  clock(at);
}

function clock(at) {
  $("compare-time").value = at;
  $("compare-clock").textContent = `${at.toFixed(2)} s`;
}

const playing = () => films.length > 0 && films.some((film) => !film.paused);

function toggle() {
  if (playing()) pause();
  else play();
}

function play() {
  if (!films.length) return;
  if (now() >= length() - frame) seek(0);
  for (const film of films) film.play().catch(() => {});
  face();
  requestAnimationFrame(follow);
}

/** Both stop on the same moment, however busy the machine was. */
function pause() {
  for (const film of films) film.pause();
  if (films.length) seek(now());
  face();
}

function face() {
  fill($("compare-play"), icon(playing() ? "pause" : "play"));
  $("compare-play").setAttribute("aria-label", playing() ? "Pause" : "Play");
}

/** While they play: the longer one leads, the other is set right when it strays, and at the end both begin anew. */
function follow() {
  if (!films.length || films.every((film) => film.paused && !film.ended)) return;
  const lead = leader();
  if (lead.ended) {
    seek(0);
    for (const film of films) film.play().catch(() => {});
  }
  for (const film of films) {
    const wanted = Math.min(lead.currentTime, (film.duration || 0) - frame / 2);
    if (film !== lead && Math.abs(film.currentTime - wanted) > DRIFT) film.currentTime = wanted;
  }
  clock(lead.currentTime);
  requestAnimationFrame(follow);
}

function drawRecipes(pair) {
  const [one, other] = pair.map((video) => ({ prompt: video.prompt, ...recipe(video) }));
  const names = [...new Set([...Object.keys(one), ...Object.keys(other)])];
  fill($("compare-recipe"), el("tbody", {}, ...names.map((name) => el("tr", { data: { differs: String(one[name] !== other[name]) } },
    el("th", { scope: "row" }, name), el("td", {}, String(one[name] ?? "–")), el("td", {}, String(other[name] ?? "–"))))));
}
