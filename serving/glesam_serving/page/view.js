/**
 * Show the picture, its masks and its prompts, and turn pointer and keys into prompts.
 */
import { context2d } from "./draw.js";
import { canvas, find } from "./elements.js";

/**
 * @typedef {import("./session.js").Point} Point
 * @typedef {import("./session.js").Box} Box
 * @typedef {import("./session.js").Segmented} Segmented
 *
 * @typedef {object} Shown What the view draws over the picture
 * @property {HTMLCanvasElement[]} enhanced masks with the enhancer, the lowest first
 * @property {HTMLCanvasElement[] | null} plain masks of plain SAM; null without a comparison
 * @property {number} split share of the width on which plain SAM is shown, 0 to 1
 * @property {Segmented} object the object whose prompts are drawn
 * @property {HTMLCanvasElement | null} preview the mask under the pointer
 */

const DRAG = 5; // pixels of the screen that make a click a drag
const MARK = 7; // radius of a point, in pixels of the screen
const SVG = "http://www.w3.org/2000/svg";

/**
 * The stage: picture, masks, marks and the keyboard's cursor.
 *
 * Events: "point" with a Point, "box" with a Box, "cursor" with its x and y, "split" with the divider's place,
 * "hover" with the pixel under the pointer, or null when it leaves.
 */
export class View extends EventTarget {
  /** @type {Shown | null} */
  #shown = null;
  /** @type {{x: number, y: number, clientX: number, clientY: number, label: 0 | 1, box: boolean} | null} */
  #pressed = null;
  /** @type {Box | null} */
  #drawn = null;
  /** @type {[number, number] | null} */
  #cursor = null;
  /** @type {[number, number] | null} */
  #corner = null;
  /** "object", "background" or "box": what a click adds */
  mode = "object";

  constructor() {
    super();
    this.stage = find("stage");
    this.image = canvas("image");
    this.masks = canvas("masks");
    this.marks = /** @type {Element} */ (/** @type {unknown} */ (find("marks")));
    this.divider = find("divider");
    this.handle = /** @type {HTMLElement} */ (this.divider.querySelector("i"));
    this.empty = find("empty");
    this.stage.addEventListener("pointerdown", (event) => this.#press(event));
    this.stage.addEventListener("pointermove", (event) => this.#move(event));
    this.stage.addEventListener("pointerup", (event) => this.#release(event));
    this.stage.addEventListener("pointercancel", () => this.#cancel());
    this.stage.addEventListener("pointerleave", () => this.#tell("hover", null));
    this.stage.addEventListener("contextmenu", (event) => event.preventDefault());
    this.stage.addEventListener("keydown", (event) => this.#key(event));
    this.stage.addEventListener("focus", () => this.#drawMarks());
    this.stage.addEventListener("blur", () => this.#drawMarks());
    this.handle.addEventListener("pointerdown", (event) => {
      this.handle.setPointerCapture(event.pointerId);
      event.stopPropagation();
    });
    this.handle.addEventListener("pointermove", (event) => {
      if (!this.handle.hasPointerCapture(event.pointerId)) return;
      const { left, width } = this.image.getBoundingClientRect();
      this.#tell("split", Math.max(0, Math.min(1, (event.clientX - left) / width)));
    });
    new ResizeObserver(() => this.#drawMarks()).observe(this.stage);
  }

  /** Return whether a picture is shown. */
  get isOpen() {
    return !this.image.hidden;
  }

  /**
   * Show a picture.
   * @param {ImageBitmap} picture
   * @param {boolean} same whether it is the same picture in another quality
   */
  open(picture, same) {
    for (const layer of [this.image, this.masks]) {
      layer.width = picture.width;
      layer.height = picture.height;
      layer.hidden = false;
    }
    context2d(this.image).drawImage(picture, 0, 0);
    this.empty.hidden = true;
    this.stage.classList.add("open");
    this.stage.setAttribute("role", "application");
    this.stage.setAttribute("aria-roledescription", "picture to click on");
    this.stage.setAttribute("aria-describedby", "stage-keys");
    this.stage.tabIndex = 0;
    this.stage.style.setProperty("--ratio", String(picture.width / picture.height));
    this.marks.setAttribute("viewBox", `0 0 ${picture.width} ${picture.height}`);
    this.#cancel();
    if (!same) {
      this.#cursor = [Math.floor(picture.width / 2), Math.floor(picture.height / 2)];
      this.#corner = null;
    }
  }

  /** @param {Shown} shown */
  show(shown) {
    this.#shown = shown;
    const { width, height } = this.masks;
    const context = context2d(this.masks);
    context.clearRect(0, 0, width, height);
    const edge = shown.plain ? Math.round(shown.split * width) : 0;
    /** @param {HTMLCanvasElement[]} layers @param {number} left @param {number} right */
    const draw = (layers, left, right) => {
      context.save();
      context.beginPath();
      context.rect(left, 0, right - left, height);
      context.clip();
      for (const layer of layers) context.drawImage(layer, 0, 0);
      context.restore();
    };
    if (shown.plain) draw(shown.plain, 0, edge);
    draw(shown.enhanced, edge, width);
    if (shown.preview) draw([shown.preview], 0, width);
    this.divider.hidden = !shown.plain;
    this.divider.style.left = `${shown.split * 100}%`;
    this.#drawMarks();
  }

  /** @param {PointerEvent} event */
  #press(event) {
    if (!this.isOpen || this.#pressed || event.button > 2 || event.button === 1) return;
    const [x, y] = this.#position(event);
    const background = event.button === 2 || event.altKey || this.mode === "background";
    // A finger that moves scrolls the page, unless boxes are chosen.
    const box = this.mode === "box" || event.pointerType !== "touch";
    this.#pressed = { x, y, clientX: event.clientX, clientY: event.clientY, label: background ? 0 : 1, box };
    if (box) this.stage.setPointerCapture(event.pointerId);
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const from = this.#pressed;
    if (!from && this.isOpen && event.pointerType !== "touch") this.#tell("hover", this.#position(event));
    if (!from || !from.box) return;
    const far = Math.hypot(event.clientX - from.clientX, event.clientY - from.clientY) > DRAG;
    if (!far && !this.#drawn) return;
    const [x, y] = this.#position(event);
    this.#drawn = [from.x, from.y, x, y];
    this.#drawMarks();
  }

  /** @param {PointerEvent} event */
  #release(event) {
    const from = this.#pressed;
    const drawn = this.#drawn;
    this.#cancel();
    if (!from) return;
    if (drawn) {
      if (drawn[0] !== drawn[2] && drawn[1] !== drawn[3]) this.#tell("box", drawn);
    } else if (this.mode !== "box") {
      this.#cursor = [from.x, from.y];
      this.#tell("point", /** @type {Point} */ ([from.x, from.y, from.label]));
    }
    event.preventDefault();
  }

  #cancel() {
    this.#pressed = null;
    this.#drawn = null;
    this.#drawMarks();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (!this.#cursor || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 10 : 1;
    const [x, y] = this.#cursor;
    switch (event.key) {
      case "ArrowLeft": this.#moveCursor(x - step, y); break;
      case "ArrowRight": this.#moveCursor(x + step, y); break;
      case "ArrowUp": this.#moveCursor(x, y - step); break;
      case "ArrowDown": this.#moveCursor(x, y + step); break;
      case "Enter": this.#tell("point", /** @type {Point} */ ([x, y, this.mode === "background" ? 0 : 1])); break;
      case "Backspace": this.#tell("point", /** @type {Point} */ ([x, y, 0])); break;
      case "b": case "B": this.#boxKey(x, y); break;
      case "Escape": this.#corner = null; this.#drawMarks(); break;
      default: return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {number} x @param {number} y */
  #moveCursor(x, y) {
    this.#cursor = [
      Math.max(0, Math.min(this.image.width - 1, x)),
      Math.max(0, Math.min(this.image.height - 1, y)),
    ];
    this.#tell("cursor", this.#cursor);
    this.#drawMarks();
  }

  /** @param {number} x @param {number} y */
  #boxKey(x, y) {
    const corner = this.#corner;
    this.#corner = corner ? null : [x, y];
    if (corner && corner[0] !== x && corner[1] !== y) this.#tell("box", [corner[0], corner[1], x, y]);
    this.#drawMarks();
  }

  /** @param {"point" | "box" | "cursor" | "split" | "hover"} kind @param {Point | Box | [number, number] | number | null} detail */
  #tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  /**
   * Return the pixel of the picture under the pointer.
   * @param {PointerEvent} event
   * @returns {[number, number]}
   */
  #position(event) {
    const frame = this.image.getBoundingClientRect();
    /** @param {number} offset @param {number} length @param {number} pixels */
    const pixel = (offset, length, pixels) =>
      Math.max(0, Math.min(pixels - 1, Math.floor((offset / length) * pixels)));
    return [
      pixel(event.clientX - frame.left, frame.width, this.image.width),
      pixel(event.clientY - frame.top, frame.height, this.image.height),
    ];
  }

  #drawMarks() {
    this.marks.replaceChildren();
    if (!this.isOpen || !this.#shown) return;
    const scale = this.image.width / Math.max(1, this.image.getBoundingClientRect().width);
    const { object } = this.#shown;
    /** @param {string} name @param {Record<string, string | number>} attributes */
    const add = (name, attributes) => {
      const element = document.createElementNS(SVG, name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
      this.marks.append(element);
    };
    /** @param {Box} box @param {Record<string, string>} look */
    const rectangle = ([x0, y0, x1, y1], look) =>
      add("rect", { x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0), ...look });
    if (object.box) rectangle(object.box, { stroke: object.colour });
    for (const [x, y, label] of object.points) {
      const r = MARK * scale;
      add("circle", { cx: x + 0.5, cy: y + 0.5, r, class: label ? "object" : "background" });
      // A sign, because colours alone do not tell everyone which point is which.
      const plus = label ? `M${x + 0.5} ${y + 0.5 - r / 2}v${r}` : "";
      add("path", { class: "sign", d: `M${x + 0.5 - r / 2} ${y + 0.5}h${r}${plus}` });
    }
    if (this.#drawn) rectangle(this.#drawn, { class: "drawn" });
    if (this.#corner && this.#cursor) rectangle([...this.#corner, ...this.#cursor], { class: "drawn" });
    if (this.#cursor && document.activeElement === this.stage && this.stage.matches(":focus-visible")) {
      const [x, y] = this.#cursor;
      const arm = 2 * MARK * scale;
      const d = `M${x + 0.5 - arm} ${y + 0.5}h${2 * arm}M${x + 0.5} ${y + 0.5 - arm}v${2 * arm}`;
      for (const look of ["under", "cursor"]) add("path", { class: look, d });
    }
  }
}
