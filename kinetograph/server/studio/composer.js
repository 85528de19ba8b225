// The composer: a prompt, an engine, and a form that is made from what the engine says of itself.

import * as api from "./api.js";
import { $, el, icon, memory, toast } from "./dom.js";

const WORDS = { create: "", remix: "A remix of", edit: "A change of", extend: "Going on from" };
const ABLE = { create: () => true, remix: () => true, edit: (engine) => engine.edits, extend: (engine) => engine.continues };
const PROMPT_LIKE = 200; // characters: texts that may be longer get a larger field

let engines = [];
let mode = { kind: "create", source: null };
let given = {}; // what was set by hand, by the name of the field
let fields = new Map(); // name -> {read, control, base, fault}
let onMade = () => {};

export const chosen = () => engines.find((engine) => engine.id === $("engine").value);
export const engineNamed = (name) => engines.find((engine) => engine.id === name);
const able = (kind) => engines.find((engine) => engine.available && ABLE[kind](engine));
export const extender = () => able("extend");
export const editor = () => able("edit");

export function start(list, made) {
  engines = list;
  onMade = made;
  const kept = memory.get("composer") ?? {};
  $("engine").replaceChildren(...engines.map((engine) => el("option", { value: engine.id, disabled: !engine.available }, engine.id)));
  const first = engines.find((engine) => engine.id === kept.engine && engine.available)
    ?? engines.find((engine) => engine.default && engine.available) ?? engines.find((engine) => engine.available);
  if (first) $("engine").value = first.id;
  given = kept.given ?? {};
  $("settings").open = kept.open ?? false;
  if (!$("prompt").value) $("prompt").value = kept.prompt ?? "";
  draw();
  $("engine").addEventListener("change", () => { draw(); keep(); });
  $("prompt").addEventListener("input", () => { fault("prompt", ""); keep(); });
  $("settings").addEventListener("toggle", keep);
  $("defaults").addEventListener("click", () => { given = {}; draw(); keep(); });
  $("mode-end").addEventListener("click", () => { afresh(); $("prompt").focus(); });
  $("composer").addEventListener("submit", (event) => { event.preventDefault(); send(); });
  $("composer").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); }
  });
}

/** Fill the form with what made a video: the same again, unless something is changed. */
export function reuse(video) {
  setMode("create", null);
  take(video);
}

/** A new prompt for a video whose other settings stay. */
export function remix(video) {
  setMode("remix", video);
  take(video);
  $("prompt").select();
}

/** Another clip out of this one's frames: by a sentence, or by an instruction where the engine follows one. */
export function edit(video) {
  setMode("edit", video);
  take(video, engineNamed(video.model)?.edits ? video.model : editor()?.id);
  $("prompt").select();
}

/** What should happen next. */
export function extend(video) {
  setMode("extend", video);
  const continues = engineNamed(video.model)?.continues;
  $("engine").value = continues ? video.model : extender()?.id ?? $("engine").value;
  given = {};
  $("prompt").value = video.prompt ?? "";
  draw();
  $("prompt").focus();
  $("prompt").select();
}

function take(video, engine = video.model) {
  if (engineNamed(engine)?.available) $("engine").value = engine;
  const { prompt, options, ...rest } = video.request;
  given = { ...rest, ...options };
  $("prompt").value = prompt;
  draw();
  keep();
  $("prompt").focus();
}

function afresh() {
  setMode("create", null);
  given = {};
  draw();
}

function setMode(kind, source) {
  mode = { kind, source };
  $("mode").hidden = kind === "create";
  $("mode-words").textContent = source ? `${WORDS[kind]} “${short(source.prompt ?? source.id)}”.` : "";
  $("engine").disabled = kind === "remix";
  for (const choice of $("engine").options) choice.disabled = !engineNamed(choice.value).available || !ABLE[kind](engineNamed(choice.value));
  $("prompt-words").textContent = kind === "edit" ? "What should it become, or what should change?" : "What should be seen?";
  $("generate").firstChild.textContent = { create: "Generate ", remix: "Remix ", edit: "Edit ", extend: "Extend " }[kind];
}

const short = (words) => (words.length > 60 ? `${words.slice(0, 58)}…` : words);

function keep() {
  memory.set("composer", { prompt: $("prompt").value, engine: $("engine").value, given, open: $("settings").open });
}

// --- the form ---------------------------------------------------------------------------------------------------------

function draw() {
  const engine = chosen();
  fields = new Map();
  fault("", "");
  if (!engine) {
    $("engine-note").textContent = "No engine can be used here at present.";
    $("generate").disabled = true;
    return;
  }
  $("engine-note").textContent = engine.available ? engine.summary : engine.error;
  $("start-row").hidden = !engine.begins || mode.kind !== "create";
  $("fields").replaceChildren(...(mode.kind === "extend" ? extension(engine) : usual(engine)), ...optional(engine));
  tellSettings();
}

function usual(engine) {
  const { minimum, maximum, multiple, square } = engine.sizes;
  const side = { type: "integer", minimum, maximum, multipleOf: multiple };
  const frames = { type: "integer", minimum: engine.min_frames, maximum: engine.max_frames, multipleOf: engine.frame_step };
  const size = square
    ? [field("width", { ...side, title: "Size", description: "pixels on a side" }, engine.width)]
    : [field("width", side, engine.width), field("height", side, engine.height)];
  return [
    ...size,
    field("frames", frames, engine.frames),
    field("fps", { type: "string", title: "Frames a second" }, engine.fps),
    seed(),
  ];
}

function extension(engine) {
  const usually = Math.max(engine.frames / Number(mode.source.request.fps.split("/")[0] || 1), 0.5);
  return [field("seconds", { type: "number", minimum: 0, title: "Seconds to add" }, usually.toFixed(1), true), seed()];
}

function optional(engine) {
  const schema = engine.options ?? {};
  return Object.entries(schema.properties ?? {}).map(([name, said]) => field(name, resolved(said, schema), said.default));
}

/** A schema without references, and without the null that an optional value brings. */
function resolved(said, schema) {
  if (said.$ref) return { ...resolved(schema.$defs[said.$ref.split("/").pop()], schema), ...said, $ref: undefined };
  const ways = said.anyOf ?? said.allOf;
  if (!ways) return said;
  const real = ways.find((way) => way.type !== "null") ?? {};
  return { ...resolved(real, schema), ...said, anyOf: undefined, allOf: undefined };
}

function seed() {
  const made = field("seed", { type: "integer", minimum: 0, description: "empty: a new one each time" }, "");
  const { control } = fields.get("seed");
  control.placeholder = "any";
  const dice = el("button", { type: "button", className: "quiet", title: "Draw a seed", aria: { label: "Draw a seed" }, on: { click: () => {
    control.value = crypto.getRandomValues(new Uint32Array(1))[0];
    control.dispatchEvent(new Event("input"));
  } } }, icon("dice"));
  const row = el("div", { className: "joined" });
  control.replaceWith(row);
  row.append(control, dice);
  return made;
}

/** One field of the form: a label, a control of the right kind, help, and room for a fault. */
function field(name, said, base, always = false) {
  const label = said.title && said.title.toLowerCase() !== titled(name).toLowerCase() ? said.title : titled(name);
  const set = name in given ? given[name] : base;
  const { control, read } = makeControl(said, set);
  control.id = `field-${name}`;
  control.setAttribute("aria-describedby", `help-${name} fault-${name}`);
  const help = el("span", { className: "help", id: `help-${name}` }, hint(said));
  const place = el("p", { className: "fault", id: `fault-${name}`, hidden: true });
  control.addEventListener("input", () => {
    const value = read();
    if (same(value, base)) delete given[name];
    else given[name] = value;
    fault(name, "");
    tellSettings();
    keep();
  });
  fields.set(name, { read, control, base, always });
  const whole = control.tagName === "TEXTAREA";
  const check = control.type === "checkbox";
  const title = el("label", { htmlFor: control.id }, label);
  return el("div", { className: `field ${whole ? "whole" : ""} ${check ? "check" : ""}` }, ...(check ? [control, title] : [title, control]), help, place);
}

const titled = (name) => name.replaceAll("_", " ").replace(/^./, (letter) => letter.toUpperCase());
const same = (one, other) => String(one ?? "") === String(other ?? "");

function hint(said) {
  const low = said.minimum ?? said.exclusiveMinimum;
  const high = said.maximum ?? said.exclusiveMaximum;
  const range = low !== undefined && high !== undefined ? `${low} to ${high}` : "";
  const step = said.multipleOf > 1 ? `in steps of ${said.multipleOf}` : "";
  return [said.description, [range, step].filter(Boolean).join(", ")].filter(Boolean).join(" · ");
}

function makeControl(said, value) {
  if (said.enum) {
    const control = el("select", {}, ...said.enum.map((choice) => el("option", { value: String(choice) }, String(choice))));
    control.value = String(value);
    return { control, read: () => said.enum.find((choice) => String(choice) === control.value) };
  }
  if (said.type === "boolean") {
    const control = el("input", { type: "checkbox", checked: value === true });
    return { control, read: () => control.checked };
  }
  if (said.type === "integer" || said.type === "number") {
    const step = said.type === "integer" ? said.multipleOf ?? 1 : "any";
    const control = el("input", { type: "number", inputMode: said.type === "integer" ? "numeric" : "decimal", min: said.minimum ?? "", max: said.maximum ?? "", step, value: value ?? "" });
    return { control, read: () => (control.value === "" ? "" : Number(control.value)) };
  }
  if (said.type === "array" || said.type === "object") {
    const control = el("textarea", { rows: 2, value: value === undefined || value === null ? "" : JSON.stringify(value), spellcheck: false });
    return { control, read: () => { try { return JSON.parse(control.value); } catch { return control.value; } } };
  }
  const long = (said.maxLength ?? 0) > PROMPT_LIKE;
  const control = el(long ? "textarea" : "input", { value: value ?? "", ...(long ? { rows: 2 } : { type: "text" }) });
  return { control, read: () => control.value };
}

function tellSettings() {
  const now = (name) => fields.get(name)?.read();
  const size = fields.has("width") && `${now("width")}×${now("height") ?? now("width")}`;
  const words = [size, fields.has("frames") && `${now("frames")} frames`, `seed ${now("seed") === "" ? "any" : now("seed")}`];
  $("settings-words").textContent = words.filter(Boolean).join(" · ");
}

function fault(name, words) {
  const id = name === "model" ? "" : name;
  const place = fields.has(id) ? $(`fault-${id}`) : id === "prompt" ? $("prompt-fault") : $("fault");
  const control = fields.get(id)?.control ?? (id === "prompt" ? $("prompt") : null);
  place.textContent = words;
  place.hidden = !words;
  control?.toggleAttribute("aria-invalid", false);
  if (words && control) {
    if (fields.has(id)) $("settings").open = true;
    control.setAttribute("aria-invalid", "true");
    control.focus();
  }
}

// --- sending ----------------------------------------------------------------------------------------------------------

async function send() {
  const prompt = $("prompt").value.trim();
  fault("", "");
  if (!prompt) return fault("prompt", "Say what should be seen, for example: a red ball moving left.");
  $("generate").disabled = true;
  try {
    const made = await api.create(...asked(prompt));
    $("start").value = "";
    if (mode.kind !== "create") afresh();
    onMade(made);
  } catch (error) {
    refuse(error);
  } finally {
    $("generate").disabled = false;
  }
}

function refuse(error) {
  const name = { size: "width", height: fields.has("height") ? "height" : "width" }[error.field] ?? error.field;
  fault(fields.has(name) || name === "prompt" ? name : "", error.message);
  if (error.status === 0) toast(error.message, "bad");
}

function asked(prompt) {
  const body = { prompt };
  const like = mode.kind === "remix" || mode.kind === "edit"; // what is left out is as it was, and not as the engine has it
  if (mode.kind !== "remix") body.model = $("engine").value;
  for (const [name, { read, base, always }] of fields) {
    const value = read();
    if (value !== "" && (always || !same(value, base) || like)) body[name] = value;
  }
  if ("width" in body && !fields.has("height")) body.height = body.width;
  if ("seconds" in body) body.seconds = String(body.seconds);
  if (mode.kind === "remix") return [`/v1/videos/${mode.source.id}/remix`, { json: body }];
  if (mode.kind === "edit") return ["/v1/videos/edits", { json: { ...body, video: { id: mode.source.id } } }];
  if (mode.kind === "extend") return ["/v1/videos/extensions", { json: { ...body, video: { id: mode.source.id } } }];
  const [picture] = $("start-row").hidden ? [] : $("start").files;
  if (!picture) return ["/v1/videos", { json: body }];
  const form = new FormData();
  for (const [name, value] of Object.entries(body)) form.append(name, typeof value === "object" ? JSON.stringify(value) : String(value));
  form.append("input_reference", picture);
  return ["/v1/videos", { form }];
}
