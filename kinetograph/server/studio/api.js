// The HTTP API, spoken from this page: requests, errors with the field they speak of, events that come back after a cut.

import { memory } from "./dom.js";

export class Refusal extends Error {
  constructor(status, said = {}) {
    super(said.message || `the server answered ${status}`);
    this.status = status;
    this.field = said.param || "";
    this.code = said.code || "";
  }
}

let key = memory.get("key") || "";
let askForKey = async () => { throw new Refusal(401, { message: "a key is wanted" }); };
const blobs = new Map(); // films and pictures that were fetched with a key: the oldest go first
const MOST_BLOBS = 60;
const heard = new Map(); // what the events last said of a video, and when: a reply may come later and be older
let moment = 0;

export const hasKey = () => key !== "";

export function whenLocked(ask) {
  askForKey = ask;
}

export function setKey(value) {
  key = value;
  memory.set("key", value);
}

async function send(path, { method = "GET", json, form, signal, headers = {} } = {}) {
  const asked = { method, signal, headers: { ...headers }, cache: "no-store", credentials: "omit" };
  if (key) asked.headers.Authorization = `Bearer ${key}`;
  if (json !== undefined) {
    asked.body = JSON.stringify(json);
    asked.headers["Content-Type"] = "application/json";
  } else if (form) {
    asked.body = form;
  }
  let answer;
  try {
    answer = await fetch(path, asked);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, { message: "the server does not answer" });
  }
  if (answer.status === 401) {
    await askForKey(key !== "");
    return send(path, { method, json, form, signal, headers });
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Refusal(answer.status, said.error);
  }
  return answer;
}

/** The JSON of an answer. Of a video it is the newest that is known: a quick one may be done before the reply is here. */
export async function ask(path, how) {
  const sent = moment;
  const said = await (await send(path, how)).json();
  const newer = heard.get(said.id);
  return newer && newer.at > sent ? newer.video : said;
}

export const engines = async () => (await ask("/v1/engines")).data;
export const queue = () => ask("/v1/queue");
export const video = (id) => ask(`/v1/videos/${id}`);
export const recipe = (id) => ask(`/v1/videos/${id}/recipe`);
export const act = (id, what, json = {}) => ask(`/v1/videos/${id}/${what}`, { method: "POST", json });
export const remove = (id) => ask(`/v1/videos/${id}`, { method: "DELETE" });
export const create = (path, { json, form }) => ask(path, {
  method: "POST", json, form, headers: { "Idempotency-Key": crypto.getRandomValues(new Uint32Array(4)).join("-") },
});

export function list(filters, signal) {
  const asked = new URLSearchParams(Object.entries(filters).filter(([, value]) => value !== "" && value != null));
  return ask(`/v1/videos?${asked}`, { signal });
}

/** A file to keep: fetched, so that it gets the name that the page gives it. */
export const file = async (id, variant) => URL.createObjectURL(await (await send(`/v1/videos/${id}/content?variant=${variant}`)).blob());

/** Where a film or a picture is. With a key it is fetched, since elements cannot send one. */
export async function media(id, variant) {
  const path = `/v1/videos/${id}/content?variant=${variant}`;
  if (!key) return path;
  if (!blobs.has(path)) {
    blobs.set(path, send(path).then((answer) => answer.blob()).then((blob) => URL.createObjectURL(blob)));
    if (blobs.size > MOST_BLOBS) {
      const [oldest, url] = blobs.entries().next().value;
      blobs.delete(oldest);
      url.then(URL.revokeObjectURL, () => {});
    }
  }
  try {
    return await blobs.get(path);
  } catch (error) {
    blobs.delete(path);
    throw error;
  }
}

/** Listen for ever: `on.video`, `on.preview`, `on.deleted`; `on.state` is told "live", "lost" or "wait". */
export async function listen(on) {
  let last = "";
  for (let pause = 500; ; pause = Math.min(pause * 1.6, 10000)) {
    try {
      const answer = await send("/v1/events", { headers: { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) } });
      on.state("live", last === "");
      pause = 500;
      for await (const event of events(answer.body)) {
        if (event.id) last = event.id;
        if (!event.data) continue;
        const said = JSON.parse(event.data);
        if (event.name === "video") remember(said);
        on[event.name]?.(said);
      }
      on.state("wait");
    } catch {
      on.state("lost");
    }
    await new Promise((done) => setTimeout(done, pause));
  }
}

function remember(video) {
  heard.delete(video.id); // so that the newest stands last
  heard.set(video.id, { at: ++moment, video });
  if (heard.size > 200) heard.delete(heard.keys().next().value);
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    kept += value;
    const blocks = kept.split(/\r\n\r\n|\n\n|\r\r/);
    kept = blocks.pop();
    for (const block of blocks) yield parsed(block);
  }
}

function parsed(block) {
  const event = { name: "message", id: "", data: "" };
  for (const line of block.split(/\r\n|\n|\r/)) {
    const [, field, value] = line.match(/^([a-z]*):? ?(.*)$/) ?? [];
    if (field === "event") event.name = value;
    else if (field === "id") event.id = value;
    else if (field === "data") event.data += (event.data && "\n") + value;
  }
  return event;
}
