/**
 * Keep the objects of a picture and the history of their prompts. Knows no DOM and no server.
 */

/**
 * @typedef {[number, number, 0 | 1]} Point x, y in pixels of the picture, and the label: 1 object, 0 background
 * @typedef {[number, number, number, number]} Box x0, y0, x1, y1 in pixels of the picture
 *
 * @typedef {object} Segmented An object of the picture. Never changed in place: a change makes a new one.
 * @property {number} id number that no other object has
 * @property {string} name
 * @property {string} colour "#rrggbb"
 * @property {readonly Point[]} points
 * @property {Box | null} box
 * @property {number | null} choice index of the chosen candidate; null is the one with the highest score
 * @property {import("./server.js").Mask | null} found the mask of an object that everything-mode found, which has no prompts
 */

const COLOURS = ["#1e90ff", "#ff9f1c", "#a855f7", "#14b8a6", "#ec4899", "#ead61e", "#6366f1", "#84cc16"];
const GOLDEN_ANGLE = 222.5;

/** Objects, which of them is current, and what undo and redo need. */
export class Session {
  /** @type {readonly Segmented[]} */
  objects = [];
  current = 0;
  #nextId = 1;
  /** @type {{objects: readonly Segmented[], current: number}[]} */
  #past = [];
  /** @type {{objects: readonly Segmented[], current: number}[]} */
  #future = [];

  constructor() {
    this.objects = [this.#newObject()];
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  /** Return the current object. */
  get object() {
    return this.objects[this.current];
  }

  /** @param {Point} point */
  addPoint(point) {
    this.#changeCurrent({ points: [...this.object.points, point], choice: null });
  }

  /** @param {Box} box corners in any order */
  setBox([x0, y0, x1, y1]) {
    /** @type {Box} */
    const box = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
    this.#changeCurrent({ box, choice: null });
  }

  /** @param {number} choice */
  choose(choice) {
    this.#changeCurrent({ choice });
  }

  /** @param {string} name */
  rename(name) {
    this.#changeCurrent({ name });
  }

  /** Add an object without prompts and make it the current one. */
  add() {
    this.#remember();
    this.objects = [...this.objects, this.#newObject()];
    this.current = this.objects.length - 1;
  }

  /**
   * Replace objects without prompts by masks that everything-mode found, as one step of the history.
   * @param {readonly import("./server.js").Mask[]} masks
   */
  addFound(masks) {
    this.#remember();
    const kept = this.objects.filter(hasMask);
    this.objects = [...kept, ...masks.map((found) => ({ ...this.#newObject(), found }))];
    if (this.objects.length === 0) this.objects = [this.#newObject()];
    this.current = this.objects.length - 1;
  }

  /** Remove the current object. One without prompts takes its place if it was the only one. */
  remove() {
    this.#remember();
    this.objects = this.objects.filter((_, index) => index !== this.current);
    if (this.objects.length === 0) this.objects = [this.#newObject()];
    this.current = Math.min(this.current, this.objects.length - 1);
  }

  /** @param {number} index */
  select(index) {
    this.current = index;
  }

  undo() {
    this.#restore(this.#past, this.#future);
  }

  redo() {
    this.#restore(this.#future, this.#past);
  }

  /** Remove all objects, as one step of the history. */
  reset() {
    this.#remember();
    this.objects = [this.#newObject()];
    this.current = 0;
  }

  /** @param {Partial<Segmented>} change */
  #changeCurrent(change) {
    this.#remember();
    // A prompt for an object that everything-mode found starts a new object.
    if (this.object.found && ("points" in change || "box" in change)) {
      this.objects = [...this.objects, { ...this.#newObject(), ...change }];
      this.current = this.objects.length - 1;
      return;
    }
    this.objects = this.objects.map((one, index) =>
      index === this.current ? { ...one, ...change } : one,
    );
  }

  #remember() {
    this.#past.push({ objects: this.objects, current: this.current });
    this.#future = [];
  }

  /**
   * @param {{objects: readonly Segmented[], current: number}[]} from
   * @param {{objects: readonly Segmented[], current: number}[]} to
   */
  #restore(from, to) {
    const state = from.pop();
    if (!state) return;
    to.push({ objects: this.objects, current: this.current });
    this.objects = state.objects;
    this.current = state.current;
  }

  /** @returns {Segmented} */
  #newObject() {
    const id = this.#nextId++;
    return { id, name: `Object ${id}`, colour: colourOf(id - 1), points: [], box: null, choice: null, found: null };
  }
}

/**
 * Return whether an object has prompts.
 * @param {Segmented} object
 */
export function isPrompted(object) {
  return object.points.length > 0 || object.box !== null;
}

/**
 * Return whether an object has, or will have, a mask.
 * @param {Segmented} object
 */
export function hasMask(object) {
  return object.found !== null || isPrompted(object);
}

/**
 * Return a colour that differs from those before it.
 * @param {number} index
 */
function colourOf(index) {
  if (index < COLOURS.length) return COLOURS[index];
  const hue = (index * GOLDEN_ANGLE) % 360;
  /** @param {number} n */
  const channel = (n) => {
    const k = (n + hue / 30) % 12;
    const value = 0.55 - 0.4 * Math.max(-1, Math.min(k - 3, 9 - k, 1));
    return Math.round(value * 255).toString(16).padStart(2, "0");
  };
  return `#${channel(0)}${channel(8)}${channel(4)}`;
}
