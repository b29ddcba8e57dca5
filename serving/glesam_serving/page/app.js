/**
 * Start the page: connect the controls, the session, the view and the server.
 */
import { drawMask } from "./rle.js";
import { saveCoco, saveMask, saveOverlay } from "./save.js";
import { Server, ServerError } from "./server.js";
import { Session, hasMask, isPrompted } from "./session.js";
import { View } from "./view.js";

/**
 * @typedef {import("./session.js").Segmented} Segmented
 * @typedef {import("./server.js").Mask} Mask
 * @typedef {import("./server.js").Encoded} Encoded
 *
 * @typedef {object} Quality The picture clear or degraded, and its embeddings
 * @property {Blob} blob
 * @property {ImageBitmap} bitmap
 * @property {Map<boolean, Promise<Encoded>>} encoded by whether the enhancer runs
 */

const LEVELS = ["clear", "LQ-1", "LQ-2", "LQ-3"];

/** @param {string} id @returns {HTMLElement} */
const find = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** @param {string} id @returns {HTMLInputElement} */
const input = (id) => /** @type {HTMLInputElement} */ (find(id));
/** @param {string} id @returns {HTMLButtonElement} */
const button = (id) => /** @type {HTMLButtonElement} */ (find(id));

const server = new Server(askKey);
const view = new View(find);
let session = new Session();
let pictureName = "picture";
/** @type {(Quality | null)[]} */
let qualities = [null, null, null, null];
let level = 0;
/** Number of the picture that is open: answers for an earlier one are dropped. */
let opened = 0;
let canDegrade = false;
/** @type {AbortController | null} */
let searching = null;
/** Answers by object, its prompts, quality, enhancer and candidates. @type {Map<string, Mask[]>} */
const answers = new Map();
/** Layers of masks by colour. @type {WeakMap<Mask, Map<string, HTMLCanvasElement>>} */
const layers = new WeakMap();
/** Requests that run. @type {Map<string, AbortController>} */
const requests = new Map();
/** Milliseconds of each stage. @type {Map<string, number>} */
const times = new Map();

main();

async function main() {
  connect();
  try {
    const bundle = await server.bundle();
    canDegrade = Boolean(bundle.features?.degrade);
    find("bundle").textContent = [bundle.name, bundle.precision, bundle.engine].filter(Boolean).join(" · ");
    if (!bundle.features?.enhance) find("compare-bar").hidden = true;
  } catch (error) {
    report(error);
  }
}

function connect() {
  find("open").addEventListener("click", () => input("file").click());
  input("file").addEventListener("change", () => {
    const file = input("file").files?.[0];
    if (file) open(file, file.name);
    input("file").value = "";
  });
  find("sample").addEventListener("click", () => act(async () => open(await server.sample(), "sample.png")));
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (file) open(file, file.name || "pasted.png");
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      view.stage.classList.toggle("over", kind === "dragover");
    });
  }
  document.addEventListener("drop", (event) => {
    const file = event.dataTransfer?.files[0];
    if (file) open(file, file.name);
  });
  for (const radio of document.querySelectorAll("input[name=mode]")) {
    radio.addEventListener("change", () => {
      view.mode = /** @type {HTMLInputElement} */ (radio).value;
      view.stage.classList.toggle("box", view.mode === "box");
    });
  }
  view.addEventListener("point", (event) => edit((one) => one.addPoint(/** @type {CustomEvent} */ (event).detail)));
  view.addEventListener("box", (event) => edit((one) => one.setBox(/** @type {CustomEvent} */ (event).detail)));
  find("undo").addEventListener("click", () => edit((one) => one.undo()));
  find("redo").addEventListener("click", () => edit((one) => one.redo()));
  find("reset").addEventListener("click", () => edit((one) => one.reset()));
  find("add").addEventListener("click", () => edit((one) => one.add()));
  find("remove").addEventListener("click", () => edit((one) => one.remove()));
  find("everything").addEventListener("click", () => searchEverything());
  find("stop").addEventListener("click", () => searching?.abort());
  find("list").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const next = Math.max(0, Math.min(session.objects.length - 1, session.current + step));
    edit((one) => one.select(next));
    event.preventDefault();
  });
  input("name").addEventListener("change", () => edit((one) => one.rename(input("name").value.trim() || one.object.name)));
  input("multimask").addEventListener("change", () => refresh());
  input("compare").addEventListener("change", () => {
    input("split").hidden = !input("compare").checked;
    refresh();
  });
  input("split").addEventListener("input", () => draw());
  input("level").addEventListener("input", () => {
    find("level-name").textContent = LEVELS[Number(input("level").value)];
  });
  input("level").addEventListener("change", () => setLevel(Number(input("level").value)));
  find("save-mask").addEventListener("click", () => {
    const item = items().find(({ object }) => object === session.object);
    if (item) saveMask(item, stem());
  });
  find("save-overlay").addEventListener("click", () => saveOverlay(view.image, items(), stem()));
  find("save-coco").addEventListener("click", () => saveCoco(pictureName, view.image, items(), stem()));
  document.addEventListener("keydown", shortcut);
}

/** @param {KeyboardEvent} event */
function shortcut(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (target.matches("input[type=text], input[type=password]") || !view.isOpen) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key === "z" && !event.shiftKey) edit((one) => one.undo());
    else if (key === "y" || (key === "z" && event.shiftKey)) edit((one) => one.redo());
    else return;
  } else if (event.altKey) return;
  else if (key === "n") edit((one) => one.add());
  else if (key === "delete") edit((one) => one.remove());
  else if (key === "c" && !find("compare-bar").hidden) input("compare").click();
  else if (key === "e" && !searching) searchEverything();
  else if (["1", "2", "3"].includes(key)) {
    const candidate = find("candidates").children[Number(key) - 1];
    if (candidate instanceof HTMLElement) candidate.click();
  } else return;
  event.preventDefault();
}

/** Open a picture. @param {Blob} blob @param {string} name */
async function open(blob, name) {
  const number = ++opened;
  await act(async () => {
    say("Reading the picture…");
    let bitmap;
    try {
      bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
    } catch {
      throw new Error(`${name}: this browser cannot read the picture; open a JPEG, PNG or WebP.`);
    }
    if (number !== opened) return;
    searching?.abort();
    for (const request of requests.values()) request.abort();
    requests.clear();
    answers.clear();
    times.clear();
    session = new Session();
    pictureName = name;
    level = 0;
    input("level").value = "0";
    find("level-name").textContent = LEVELS[0];
    qualities = [{ blob, bitmap, encoded: new Map() }, null, null, null];
    view.open(bitmap, false);
    find("level-bar").hidden = !canDegrade;
    view.describe(`${name}, ${bitmap.width} by ${bitmap.height} pixels. Press Enter for a point at the cursor.`);
    update();
    await encode(true);
    if (number === opened) say("Ready: click an object.");
  });
}

/** Show the picture at another degradation. @param {number} wanted 0 to 3 */
async function setLevel(wanted) {
  const number = opened;
  await act(async () => {
    if (!qualities[wanted]) {
      say(`Degrading to ${LEVELS[wanted]}…`);
      const clear = await encodedOf(0, true);
      const blob = await server.degrade(clear.image_id, wanted);
      if (number !== opened) return;
      qualities[wanted] = { blob, bitmap: await createImageBitmap(blob), encoded: new Map() };
    }
    if (number !== opened || Number(input("level").value) !== wanted) return;
    level = wanted;
    const quality = qualities[level];
    if (quality) view.open(quality.bitmap, true);
    await refresh();
  });
}

/** Encode the shown picture. @param {boolean} enhance */
async function encode(enhance) {
  say("Encoding…");
  const encoded = await encodedOf(level, enhance);
  if (enhance) {
    for (const [stage, seconds] of Object.entries(encoded.seconds)) times.set(stage, seconds * 1000);
    update();
  }
  return encoded;
}

/** @param {number} at level @param {boolean} enhance @returns {Promise<Encoded>} */
function encodedOf(at, enhance) {
  const quality = qualities[at];
  if (!quality) throw new Error("No picture is open; open one first.");
  let encoded = quality.encoded.get(enhance);
  if (!encoded) {
    encoded = server.encode(quality.blob, enhance);
    quality.encoded.set(enhance, encoded);
    encoded.catch(() => quality.encoded.delete(enhance));
  }
  return encoded;
}

/** Change the session, then ask for the masks that are missing. @param {(session: Session) => void} change */
function edit(change) {
  if (!view.isOpen) return;
  change(session);
  refresh();
}

/** Ask for every mask that should be shown and is not known, and show what is known. */
async function refresh() {
  update();
  const wanted = [true, ...(input("compare").checked ? [false] : [])];
  const missing = session.objects
    .filter((object) => isPrompted(object))
    .flatMap((object) => wanted.map((enhance) => ({ object, enhance })))
    .filter(({ object, enhance }) => !answers.has(keyOf(object, enhance)));
  await Promise.all(missing.map(({ object, enhance }) => act(() => segment(object, enhance))));
}

/** @param {Segmented} object @param {boolean} enhance */
async function segment(object, enhance) {
  const number = opened;
  const slot = `${object.id} ${enhance}`;
  const key = keyOf(object, enhance);
  const multimask = input("multimask").checked;
  requests.get(slot)?.abort();
  const request = new AbortController();
  requests.set(slot, request);
  try {
    let { image_id } = await encode(enhance);
    const start = performance.now();
    let answer;
    try {
      answer = await server.segment(image_id, object, multimask, request.signal);
    } catch (error) {
      if (!(error instanceof ServerError) || error.status !== 404) throw error;
      // The server has dropped the image from its cache: send it again.
      qualities[level]?.encoded.delete(enhance);
      ({ image_id } = await encode(enhance));
      answer = await server.segment(image_id, object, multimask, request.signal);
    }
    if (number !== opened) return;
    answers.set(key, answer.masks);
    for (const [stage, seconds] of Object.entries(answer.seconds)) times.set(stage, seconds * 1000);
    times.set("answer", performance.now() - start);
    say(`${object.name}: ${answer.masks[0].area.toLocaleString()} pixels.`);
  } finally {
    if (requests.get(slot) === request) requests.delete(slot);
  }
  update();
}

async function searchEverything() {
  if (!view.isOpen || searching) return;
  const number = opened;
  const search = new AbortController();
  searching = search;
  find("stop").hidden = find("progress").hidden = false;
  await act(async () => {
    const { image_id } = await encode(true);
    say("Searching…");
    update();
    const masks = await server.everything(image_id, (share) => {
      /** @type {HTMLProgressElement} */ (find("progress")).value = share;
    }, search.signal);
    if (number !== opened) return;
    masks.sort((one, other) => other.area - one.area);
    session.addFound(masks);
    say(`Found ${masks.length} objects.`);
  });
  searching = null;
  find("stop").hidden = find("progress").hidden = true;
  /** @type {HTMLProgressElement} */ (find("progress")).value = 0;
  update();
}

/** @param {Segmented} object @param {boolean} enhance */
function keyOf(object, enhance) {
  return JSON.stringify([object.points, object.box, level, enhance, input("multimask").checked]);
}

/** Return the mask of an object, or undefined if it is not known yet. @param {Segmented} object @param {boolean} enhance */
function maskOf(object, enhance) {
  if (object.found) return object.found;
  const masks = answers.get(keyOf(object, enhance));
  return masks && masks[object.choice ?? bestOf(masks)];
}

/** @param {Mask[]} masks */
function bestOf(masks) {
  return masks.reduce((best, mask, index) => (mask.predicted_iou > masks[best].predicted_iou ? index : best), 0);
}

/** Return the objects with masks, the largest first. @param {boolean} [enhance] */
function items(enhance = true) {
  return session.objects
    .flatMap((object) => {
      const mask = maskOf(object, enhance);
      return mask ? [{ object, mask, layer: layerOf(mask, object.colour) }] : [];
    })
    .sort((one, other) => other.mask.area - one.mask.area);
}

/** @param {Mask} mask @param {string} colour */
function layerOf(mask, colour) {
  const drawn = layers.get(mask) ?? new Map();
  layers.set(mask, drawn);
  let layer = drawn.get(colour);
  if (!layer) {
    layer = drawMask(mask.rle, colour);
    drawn.set(colour, layer);
  }
  return layer;
}

function draw() {
  if (!view.isOpen) return;
  const compare = input("compare").checked;
  view.show({
    enhanced: items().map(({ layer }) => layer),
    plain: compare ? items(false).map(({ layer }) => layer) : null,
    split: Number(input("split").value) / 100,
    object: session.object,
  });
}

/** Bring all controls up to date. */
function update() {
  draw();
  const isOpen = view.isOpen;
  const mask = maskOf(session.object, true);
  button("undo").disabled = !session.canUndo;
  button("redo").disabled = !session.canRedo;
  button("reset").disabled = !session.objects.some(hasMask);
  button("add").disabled = !isOpen || !hasMask(session.object);
  button("remove").disabled = !isOpen || !hasMask(session.object);
  button("everything").disabled = !isOpen || searching !== null;
  button("save-mask").disabled = !mask;
  button("save-overlay").disabled = button("save-coco").disabled = items().length === 0;
  input("name").disabled = !isOpen;
  input("name").value = session.object.name;
  showList();
  showCandidates();
  rows(find("figures"), mask ? [
    ["Score", mask.predicted_iou.toFixed(3)],
    ["Stability", mask.stability_score.toFixed(3)],
    ["Area", `${mask.area.toLocaleString()} pixels`],
    ["Box", mask.box.map((value) => Math.round(value)).join(", ")],
  ] : [], "dt", "dd");
  const table = /** @type {HTMLTableElement} */ (find("times")).tBodies[0];
  table.replaceChildren(...[...times].map(([stage, milliseconds]) => {
    const row = document.createElement("tr");
    rows(row, [[stage, `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`]], "td", "td");
    return row;
  }));
}

function showList() {
  const list = find("list");
  list.replaceChildren(...session.objects.map((object, index) => {
    const entry = document.createElement("li");
    entry.id = `object-${object.id}`;
    entry.setAttribute("role", "option");
    entry.setAttribute("aria-selected", String(index === session.current));
    const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    swatch.setAttribute("viewBox", "0 0 2 2");
    for (const [key, value] of [["cx", "1"], ["cy", "1"], ["r", "1"], ["fill", object.colour]]) dot.setAttribute(key, value);
    swatch.append(dot);
    const score = document.createElement("small");
    score.textContent = maskOf(object, true)?.predicted_iou.toFixed(2) ?? "";
    entry.append(swatch, object.name, score);
    entry.addEventListener("click", () => edit((one) => one.select(index)));
    return entry;
  }));
  list.setAttribute("aria-activedescendant", `object-${session.object.id}`);
}

function showCandidates() {
  const masks = answers.get(keyOf(session.object, true)) ?? [];
  const chosen = session.object.choice ?? bestOf(masks.length ? masks : [/** @type {Mask} */ ({})]);
  find("candidates").hidden = masks.length < 2;
  find("candidates").replaceChildren(...(masks.length < 2 ? [] : masks).map((mask, index) => {
    const candidate = document.createElement("button");
    candidate.type = "button";
    candidate.textContent = mask.predicted_iou.toFixed(2);
    candidate.setAttribute("aria-label", `Candidate ${index + 1}, score ${mask.predicted_iou.toFixed(2)}`);
    candidate.setAttribute("aria-pressed", String(index === chosen));
    candidate.addEventListener("click", () => edit((one) => one.choose(index)));
    return candidate;
  }));
}

/** @param {HTMLElement} parent @param {string[][]} pairs @param {string} name @param {string} value */
function rows(parent, pairs, name, value) {
  parent.replaceChildren(...pairs.flatMap((pair) => pair.map((text, index) => {
    const element = document.createElement(index === 0 ? name : value);
    element.textContent = text;
    return element;
  })));
}

/** Run a piece of work and report its error on the page. @param {() => Promise<unknown>} work */
async function act(work) {
  try {
    find("error").hidden = true;
    await work();
  } catch (error) {
    report(error);
  }
}

/** @param {unknown} error */
function report(error) {
  if (error instanceof DOMException && error.name === "AbortError") return;
  find("error").textContent = error instanceof Error ? error.message : String(error);
  find("error").hidden = false;
  say("");
}

/** @param {string} sentence */
function say(sentence) {
  find("status").textContent = sentence;
}

/** Ask for the API key. @returns {Promise<string>} */
function askKey() {
  const dialog = /** @type {HTMLDialogElement} */ (find("key-dialog"));
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(input("key").value), { once: true });
    dialog.showModal();
  });
}

function stem() {
  return pictureName.replace(/\.[^.]*$/, "") || "picture";
}
