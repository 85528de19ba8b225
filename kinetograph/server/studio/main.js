// Brings the parts together: what one of them learns, the others are told.

import * as api from "./api.js";
import * as compare from "./compare.js";
import * as composer from "./composer.js";
import { $, memory, toast } from "./dom.js";
import * as lists from "./lists.js";
import * as stage from "./stage.js";

// --- light or dark ----------------------------------------------------------------------------------------------------

const theme = memory.get("theme");
if (theme) document.documentElement.dataset.theme = theme;

function turn() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  memory.set("theme", document.documentElement.dataset.theme);
}

// --- the door ---------------------------------------------------------------------------------------------------------

let opening = null;

/** Ask for a key, once for everybody who waits for it. */
function unlock(wrong) {
  opening ??= new Promise((done) => {
    $("door-fault").textContent = wrong ? "The server does not know this key." : "";
    $("door-fault").hidden = !wrong;
    $("door").showModal();
    $("door-form").addEventListener("submit", (event) => {
      event.preventDefault();
      api.setKey($("key").value.trim());
      $("door").close();
      opening = null;
      done();
    }, { once: true });
  });
  return opening;
}

api.whenLocked(unlock);
$("door").addEventListener("cancel", (event) => event.preventDefault()); // without a key there is nothing behind it

// --- what happens -----------------------------------------------------------------------------------------------------

function made(video) {
  lists.update(video);
  stage.offer(video);
}

function deleted(id) {
  lists.forget(id);
  compare.unmark(id);
  stage.clear(id);
}

const news = {
  video(video) {
    lists.update(video);
    stage.update(video);
  },
  preview: stage.preview,
  deleted: ({ id }) => deleted(id),
  state(state, first) {
    $("connection").dataset.state = state;
    $("connection").textContent = { live: "connected", lost: "no connection, trying again", wait: "connecting" }[state];
    if (state === "live" && !first) catchUp();
  },
};

async function catchUp() {
  await lists.refresh().catch((error) => toast(error.message, "bad"));
  const shown = stage.current();
  if (shown) await api.video(shown.id).then(stage.update, () => {});
}

async function openNamed() {
  const id = location.hash.slice(1);
  if (!/^video_[0-9a-z]+$/.test(id)) return;
  await api.video(id).then((video) => stage.show(video, { chosen: true }), (error) => toast(error.status === 404 ? "That clip is no longer there" : error.message, "bad"));
}

// --- keys -------------------------------------------------------------------------------------------------------------

const KEYS = {
  n: () => $("prompt").focus(),
  s: () => $("stage").focus(),
  g: () => lists.focusGrid(),
  "/": () => $("search").focus(),
  x: () => stage.cancel(),
  e: () => stage.edit(),
  t: turn,
  "?": () => $("keys").showModal(),
  ",": () => stage.step(-1),
  ".": () => stage.step(1),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const { target } = event;
  const writing = target.matches("input:not([type=checkbox]), textarea, select");
  if (writing) {
    if (event.key === "Escape") target.blur();
    return;
  }
  if (event.key === " " && (target === document.body || $("stage") === target || target.tagName === "VIDEO")) {
    event.preventDefault();
    stage.toggle();
  } else if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
});

// --- beginning --------------------------------------------------------------------------------------------------------

$("theme").addEventListener("click", turn);
$("help").addEventListener("click", () => $("keys").showModal());
for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
for (const dialog of document.querySelectorAll("dialog:not(#door)")) dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
if (/Mac|iPhone|iPad/.test(navigator.platform)) for (const key of document.querySelectorAll("kbd")) key.textContent = key.textContent.replace("Ctrl", "⌘");
addEventListener("hashchange", openNamed);

async function begin() {
  const engines = await api.engines();
  compare.start((ids) => lists.marked(ids));
  stage.start({ onCompare: (video) => compare.mark(video), onDeleted: deleted, onStage: lists.highlight });
  composer.start(engines, made);
  $("key-edit").hidden = !composer.editor();
  lists.start({ onOpen: (video) => stage.show(video, { focus: true, chosen: true }), onUpdate: stage.update, onMark: compare.mark }, engines);
  await lists.refresh();
  await openNamed();
  document.documentElement.dataset.ready = "true";
  api.listen(news);
}

begin().catch((error) => {
  $("connection").dataset.state = "lost";
  $("connection").textContent = error.message;
  toast(error.message, "bad");
});
