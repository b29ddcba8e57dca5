/**
 * Start the page: what each action does to the session, and what is shown then.
 */
import { Answers, chosenOf } from "./answers.js";
import { connect } from "./controls.js";
import { button, find, input, progress, table } from "./elements.js";
import { showCandidates, showFigures, showList, showTimes } from "./panel.js";
import { LEVELS, Picture, readPicture } from "./picture.js";
import { iou } from "./rle.js";
import { saveCoco, saveMask, saveOverlay } from "./save.js";
import { Hover } from "./hover.js";
import { LocalModel } from "./local.js";
import { Server } from "./server.js";
import { Session, hasMask, isPrompted } from "./session.js";
import { View } from "./view.js";
import { installServiceWorker, modelOf, readSite, showModel, showWays, waysOf } from "./ways.js";

/**
 * @typedef {import("./session.js").Segmented} Segmented
 * @typedef {import("./ways.js").Way} Way
 */

const server = new Server(askKey);
/** What runs the model. @type {Server | LocalModel} */
let model = server;
/** @type {import("./ways.js").Site | null} */
let site = null;
const view = new View();
let session = new Session();
/** @type {Answers | null} The answers for the picture that is open */
let answers = null;
/** Number of the picture that was opened last. */
let opened = 0;
let canEnhance = true;
let canDegrade = false;
const hover = new Hover(draw);
/** @type {AbortController | null} */
let searching = null;
/** Milliseconds of each stage. @type {Map<string, number>} */
const times = new Map();

connect(view, {
  open,
  openSample: () => act(async () => open(await model.sample(), "sample.jpg")),
  edit,
  refresh,
  draw,
  setLevel,
  setLeast,
  searchEverything,
  stopSearch: () => searching?.abort(),
  save,
  say,
  hover: (pixel) => hover.move(pixel),
  setWay: (way) => act(() => setWay(/** @type {Way} */ (way))),
});
find("selftest").addEventListener("click", () => act(testModel));
act(start);

async function start() {
  site = await readSite();
  if (await installServiceWorker(site)) return;
  const ways = waysOf(site);
  showWays(ways, site);
  if (ways.length === 0) throw new Error(site.note ?? "This site holds no model that runs in a browser; export it again.");
  await setWay(ways[0]);
  if (site.note) say(site.note);
}

/** Run the model in another way, and show the open picture with it. @param {Way} way */
async function setWay(way) {
  if (!site) return;
  say("Loading the model…");
  const { picture } = answers ?? {};
  if (model instanceof LocalModel) model.close();
  hover.stop();
  model = modelOf(way, site, server);
  times.clear();
  await describeModel(way);
  if (picture) await open((await picture.quality(0)).blob, picture.name);
}

/** @param {Way} way */
async function describeModel(way) {
  const used = model;
  const described = await used.bundle();
  if (used !== model) return;
  const { features, everything } = described;
  canEnhance = features.enhance;
  canDegrade = features.degrade;
  if (everything) setLeast(everything.pred_iou_thresh);
  showModel(way, described);
  if (!described.model.trained) report(new Error("This bundle is untrained: its masks are meaningless."));
  else if (!view.isOpen) say(way === "server" ? "" : "Ready: open a picture.");
}

/** Run the golden self-test and show its result. */
async function testModel() {
  if (!(model instanceof LocalModel)) return;
  say("Testing the model…");
  const { passed, errors, failures, mask_iou_mean: mean } = await model.selftest();
  if (!passed) throw new Error(`The self-test failed: ${failures.join("; ")}.`);
  const largest = Math.max(...errors.map(({ relative_l2: error }) => error));
  say(`The self-test passed: largest error of a stage ${largest.toExponential(1)}, mean mask IoU ${mean.toFixed(5)}.`);
}

/** Open a picture. @param {Blob} blob @param {string} name */
async function open(blob, name) {
  const number = ++opened;
  await act(async () => {
    say("Reading the picture…");
    const bitmap = await readPicture(blob, name);
    if (number !== opened) return;
    searching?.abort();
    answers?.abort();
    const picture = new Picture(model, name, blob, bitmap);
    answers = new Answers(picture);
    hover.stop();
    session = new Session();
    times.clear();
    input("level").value = "0";
    input("compare").checked = false;
    view.open(bitmap, false);
    view.stage.setAttribute("aria-label", `${name}, ${bitmap.width} by ${bitmap.height} pixels`);
    for (const part of document.querySelectorAll(".when-open")) /** @type {HTMLElement} */ (part).hidden = false;
    find("compare-bar").hidden = !canEnhance;
    find("level-bar").hidden = !canDegrade;
    find("quality").hidden = !canEnhance && !canDegrade;
    update();
    say("Encoding…");
    const { seconds } = await picture.encode(0, canEnhance);
    if (answers?.picture !== picture) return;
    addTimes(seconds);
    if (model instanceof LocalModel) startHover(model, picture);
    update();
    say("Ready: click an object.");
  });
}

/** Show the mask under the pointer from now on. @param {LocalModel} local @param {Picture} picture */
function startHover(local, picture) {
  hover.start(async (point) => {
    const object = { points: [point], box: null };
    const { level } = picture;
    const { masks } = await picture.withImage(level, canEnhance, (image) => local.segment(image, object, input("multimask").checked));
    return { masks, colour: session.object.colour };
  });
}

/** Show the picture at another degradation. @param {number} level */
async function setLevel(level) {
  const picture = answers?.picture;
  if (!picture) return;
  await act(async () => {
    say(level === 0 ? "" : `Degrading to ${LEVELS[level]}…`);
    const { bitmap } = await picture.quality(level);
    if (answers?.picture !== picture || Number(input("level").value) !== level) return;
    picture.level = level;
    view.open(bitmap, true);
    // What the enhancer is for shows best beside plain SAM.
    if (level > 0 && canEnhance) input("compare").checked = true;
    await refresh();
    say(`The picture is ${level === 0 ? "clear" : `degraded to ${LEVELS[level]}`}.`);
  });
}

/** Change the session, then ask for the masks that are missing. @param {(session: Session) => void} change */
function edit(change) {
  if (!view.isOpen) return;
  change(session);
  refresh();
}

/** Show what is known, and ask for the masks that are missing. */
async function refresh() {
  update();
  const wanted = [shown(canEnhance)];
  if (isComparing()) wanted.push(shown(false));
  if (isComparing() && answers?.picture.level) wanted.push(clear());
  const prompted = session.objects.filter(isPrompted);
  await Promise.all(prompted.flatMap((object) => wanted.map((variant) => act(() => segment(object, variant)))));
}

/** @param {Segmented} object @param {import("./answers.js").Variant} variant */
async function segment(object, variant) {
  const from = answers;
  const start = performance.now();
  const seconds = await from?.ask(object, variant);
  if (!seconds || from !== answers) return;
  if (object === session.object && variant.enhance === canEnhance) {
    addTimes({ ...seconds, answer: (performance.now() - start) / 1000 });
    const mask = from?.mask(object, variant);
    if (mask) say(`${object.name}: ${mask.area.toLocaleString("en")} pixels, score ${mask.predicted_iou.toFixed(2)}.`);
  }
  update();
}

async function searchEverything() {
  const from = answers;
  if (!from || searching) return;
  const search = new AbortController();
  searching = search;
  progress.value = 0;
  find("stop").hidden = progress.hidden = false;
  update();
  await act(async () => {
    say("Searching for all objects…");
    const masks = await from.picture.withImage(from.picture.level, canEnhance, (image) =>
      model.everything(image, Number(input("least").value), (share) => (progress.value = share), search.signal),
    );
    if (from !== answers) return;
    masks.sort((one, other) => other.area - one.area);
    session.addFound(masks);
    say(`Found ${masks.length} objects.`);
  });
  if (search.signal.aborted && from === answers) say("The search was stopped.");
  searching = null;
  find("stop").hidden = progress.hidden = true;
  update();
}

/** Save the current mask, the overlay or all masks. @param {"mask" | "overlay" | "coco"} what */
function save(what) {
  if (!answers) return;
  const { name, stem } = answers.picture;
  const item = items(true).find(({ object }) => object === session.object);
  if (what === "overlay") saveOverlay(view.image, items(true), stem);
  else if (what === "coco") saveCoco(name, view.image, items(true), stem);
  else if (item) saveMask(item, stem);
}

/** The picture as shown. @param {boolean} enhance */
function shown(enhance) {
  return { level: answers?.picture.level ?? 0, enhance, multimask: input("multimask").checked };
}

/** What a degraded picture is compared to: plain SAM on the clear one. */
function clear() {
  return { ...shown(false), level: 0 };
}

function isComparing() {
  return canEnhance && input("compare").checked;
}

/** Return the objects that have masks, the largest first. @param {boolean} enhance */
function items(enhance) {
  const from = answers;
  if (!from) return [];
  return session.objects
    .flatMap((object) => {
      const mask = from.mask(object, shown(enhance && canEnhance));
      return mask ? [{ object, mask, layer: from.layer(mask, object.colour) }] : [];
    })
    .sort((one, other) => other.mask.area - one.mask.area);
}

function draw() {
  if (!view.isOpen) return;
  view.show({
    enhanced: items(true).map(({ layer }) => layer),
    plain: isComparing() ? items(false).map(({ layer }) => layer) : null,
    split: Number(input("split").value) / 100,
    object: session.object,
    preview: hover.layer,
  });
  if (hover.milliseconds !== null) {
    times.set("hover", hover.milliseconds);
    showTimes(table("times"), times);
  }
}

/** @param {number} least score of the masks that a search returns */
function setLeast(least) {
  input("least").value = String(least);
  find("least-value").textContent = least.toFixed(2);
}

/** Bring all controls up to date. */
function update() {
  const from = answers;
  if (!from) return;
  draw();
  const { object } = session;
  const mask = from.mask(object, shown(canEnhance));
  button("undo").disabled = !session.canUndo;
  button("redo").disabled = !session.canRedo;
  button("reset").disabled = !session.objects.some(hasMask);
  button("add").disabled = !hasMask(object);
  button("remove").disabled = session.objects.length === 1 && !hasMask(object);
  button("everything").disabled = searching !== null;
  button("save-mask").disabled = !mask;
  button("save-overlay").disabled = button("save-coco").disabled = items(true).length === 0;
  input("split").disabled = !isComparing();
  input("level").setAttribute("aria-valuetext", LEVELS[Number(input("level").value)]);
  if (document.activeElement !== input("name")) input("name").value = object.name;
  showList(find("list"), session.objects, session.current, (one) => from.mask(one, shown(canEnhance)));
  const candidates = from.candidates(object, shown(canEnhance)) ?? [];
  showCandidates(find("candidates"), candidates, candidates.length ? chosenOf(object, candidates) : 0, view.image, (one) =>
    from.layer(one, object.colour),
  );
  showFigures(table("figures"), figures());
  showTimes(table("times"), times);
}

/** Return the figures of the current object. */
function figures() {
  const { object } = session;
  const reference = answers?.picture.level && isComparing() && !object.found ? answers.mask(object, clear()) : undefined;
  /** @param {string} title @param {boolean} enhance */
  const column = (title, enhance) => {
    const mask = answers?.mask(object, shown(enhance));
    return { title, mask, agreement: mask && reference ? iou(mask.rle, reference.rle) : null };
  };
  const first = column("enhancer", canEnhance);
  return isComparing() && !object.found ? [column("plain", false), first] : [first];
}

/** @param {Record<string, number>} seconds of each stage */
function addTimes(seconds) {
  for (const [stage, value] of Object.entries(seconds)) times.set(stage, value * 1000);
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

/** Ask for the API key. @returns {Promise<string>} an empty string if the user gave none */
function askKey() {
  const dialog = /** @type {HTMLDialogElement} */ (find("key-dialog"));
  input("key").value = "";
  dialog.returnValue = "";
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(input("key").value), { once: true });
    dialog.showModal();
  });
}
