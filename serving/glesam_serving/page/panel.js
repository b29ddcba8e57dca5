/**
 * Fill the panel beside the picture: objects, candidates, figures, times.
 */
import { context2d, newCanvas } from "./draw.js";

/**
 * @typedef {import("./session.js").Segmented} Segmented
 * @typedef {import("./server.js").Mask} Mask
 *
 * @typedef {object} Column One column of the table of figures
 * @property {string} title
 * @property {Mask | undefined} mask
 * @property {number | null} agreement IoU with the clear picture's mask; null where it is not known
 */

const SVG = "http://www.w3.org/2000/svg";
const THUMBNAIL = 96; // width in pixels
const STAGES = new Map([
  ["load", "load the model"],
  ["read", "read the file"],
  ["preprocess", "resize"],
  ["encoder", "encoder"],
  ["enhancer", "enhancer"],
  ["embedding", "download embedding"],
  ["queue", "wait"],
  ["decoder", "decoder"],
  ["masks", "mask at full size"],
  ["answer", "click to mask"],
  ["hover", "mask under pointer"],
]);

/**
 * Show the objects, with the score of each.
 * @param {HTMLElement} list
 * @param {readonly Segmented[]} objects
 * @param {number} current
 * @param {(object: Segmented) => Mask | undefined} maskOf
 */
export function showList(list, objects, current, maskOf) {
  list.replaceChildren(
    ...objects.map((object, index) => {
      const entry = document.createElement("li");
      entry.id = `object-${object.id}`;
      entry.dataset.index = String(index);
      entry.setAttribute("role", "option");
      entry.setAttribute("aria-selected", String(index === current));
      const score = document.createElement("small");
      score.textContent = maskOf(object)?.predicted_iou.toFixed(2) ?? "";
      entry.append(swatch(object.colour), object.name, score);
      return entry;
    }),
  );
  list.setAttribute("aria-activedescendant", `object-${objects[current].id}`);
  const { offsetTop, offsetHeight } = /** @type {HTMLElement} */ (list.children[current]);
  const top = offsetTop - list.offsetTop;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top + offsetHeight - list.clientHeight;
}

/**
 * Show the candidates of an object as buttons with small pictures.
 * @param {HTMLElement} group
 * @param {Mask[]} masks
 * @param {number} chosen
 * @param {HTMLCanvasElement} picture
 * @param {(mask: Mask) => HTMLCanvasElement} layerOf
 */
export function showCandidates(group, masks, chosen, picture, layerOf) {
  const focused = [...group.children].indexOf(/** @type {Element} */ (document.activeElement));
  group.hidden = masks.length < 2;
  group.replaceChildren(
    ...(group.hidden ? [] : masks).map((mask, index) => {
      const button = document.createElement("button");
      const score = mask.predicted_iou.toFixed(2);
      button.type = "button";
      button.dataset.index = String(index);
      button.setAttribute("aria-label", `Candidate ${index + 1}: ${score}`);
      button.setAttribute("aria-pressed", String(index === chosen));
      button.append(thumbnail(picture, layerOf(mask)), `${index + 1}: ${score}`);
      return button;
    }),
  );
  if (focused >= 0) /** @type {HTMLElement | undefined} */ (group.children[focused])?.focus();
}

/**
 * Show the figures of the current mask, a column for each model.
 * @param {HTMLTableElement} table
 * @param {Column[]} columns
 */
export function showFigures(table, columns) {
  table.hidden = columns.every(({ mask }) => !mask);
  if (table.hidden) return;
  /** @param {(mask: Mask, column: Column) => string} text */
  const cells = (text) => columns.map((column) => (column.mask ? text(column.mask, column) : "…"));
  const head = columns.length > 1 ? [row(["", ...columns.map(({ title }) => title)], "col")] : [];
  table.tHead?.replaceChildren(...head);
  table.tBodies[0].replaceChildren(
    row(["Score", ...cells((mask) => mask.predicted_iou.toFixed(3))]),
    row(["Stability", ...cells((mask) => mask.stability_score.toFixed(3))]),
    row(["Area", ...cells((mask) => mask.area.toLocaleString("en"))]),
    ...(columns.length > 1 ? [] : [row(["Box", ...cells((mask) => mask.box.join(", "))])]),
    ...(columns.some(({ agreement }) => agreement !== null)
      ? [row(["IoU with clear", ...cells((_, { agreement }) => agreement?.toFixed(3) ?? "…")])]
      : []),
  );
}

/**
 * Show the milliseconds of each stage.
 * @param {HTMLTableElement} table
 * @param {Map<string, number>} times in milliseconds
 */
export function showTimes(table, times) {
  table.tBodies[0].replaceChildren(
    ...[...STAGES].flatMap(([stage, name]) => {
      const time = times.get(stage);
      return time === undefined ? [] : [row([name, `${time.toFixed(time < 10 ? 1 : 0)} ms`])];
    }),
  );
}

/** @param {string[]} texts the heading and the cells @param {"row" | "col"} [scope] */
function row(texts, scope = "row") {
  const made = document.createElement("tr");
  made.append(
    ...texts.map((text, index) => {
      const isHeading = scope === "col" ? index > 0 : index === 0;
      const cell = document.createElement(isHeading ? "th" : "td");
      if (isHeading) cell.setAttribute("scope", scope);
      cell.textContent = text;
      return cell;
    }),
  );
  return made;
}

/** @param {string} colour */
function swatch(colour) {
  const made = document.createElementNS(SVG, "svg");
  const dot = document.createElementNS(SVG, "circle");
  made.setAttribute("viewBox", "0 0 2 2");
  made.setAttribute("aria-hidden", "true");
  for (const [key, value] of [["cx", "1"], ["cy", "1"], ["r", "1"], ["fill", colour]]) dot.setAttribute(key, value);
  made.append(dot);
  return made;
}

/** @param {HTMLCanvasElement} picture @param {HTMLCanvasElement} layer */
function thumbnail(picture, layer) {
  const canvas = newCanvas(THUMBNAIL, Math.max(1, Math.round((THUMBNAIL * picture.height) / picture.width)));
  const context = context2d(canvas);
  for (const image of [picture, layer]) context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}
