/**
 * Connect the controls, the clicks on the picture and the keys to what they do.
 */
import { button, find, input } from "./elements.js";

/**
 * @typedef {import("./session.js").Session} Session
 *
 * @typedef {object} Actions What the controls can do
 * @property {(blob: Blob, name: string) => void} open
 * @property {() => void} openSample
 * @property {(change: (session: Session) => void) => void} edit change the session, then ask for masks
 * @property {() => void} refresh ask for the masks that are missing
 * @property {() => void} draw
 * @property {(level: number) => void} setLevel
 * @property {(least: number) => void} setLeast
 * @property {() => void} searchEverything
 * @property {() => void} stopSearch
 * @property {(what: "mask" | "overlay" | "coco") => void} save
 * @property {(sentence: string) => void} say
 * @property {(pixel: [number, number] | null) => void} hover show the mask under the pointer
 * @property {(way: string) => void} setWay
 */

/**
 * @param {import("./view.js").View} view
 * @param {Actions} actions
 */
export function connect(view, actions) {
  const { edit } = actions;
  /** @param {string} id @param {() => void} handle */
  const click = (id, handle) => find(id).addEventListener("click", handle);
  click("open", () => input("file").click());
  click("sample", actions.openSample);
  click("undo", () => edit((session) => session.undo()));
  click("redo", () => edit((session) => session.redo()));
  click("reset", () => edit((session) => session.reset()));
  click("add", () => edit((session) => session.add()));
  click("remove", () => edit((session) => session.remove()));
  click("everything", actions.searchEverything);
  click("stop", actions.stopSearch);
  click("save-mask", () => actions.save("mask"));
  click("save-overlay", () => actions.save("overlay"));
  click("save-coco", () => actions.save("coco"));
  input("file").addEventListener("change", () => {
    const file = input("file").files?.[0];
    if (file) actions.open(file, file.name);
    input("file").value = "";
  });
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (file) actions.open(file, file.name || "pasted.png");
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      view.stage.classList.toggle("over", kind === "dragover");
    });
  }
  document.addEventListener("drop", (event) => {
    const file = event.dataTransfer?.files[0];
    if (file) actions.open(file, file.name);
  });
  for (const radio of document.querySelectorAll("input[name=mode]")) {
    radio.addEventListener("change", () => {
      view.mode = /** @type {HTMLInputElement} */ (radio).value;
      view.stage.classList.toggle("box", view.mode === "box");
    });
  }
  /** @param {string} kind @param {(detail: any) => void} handle */
  const onView = (kind, handle) =>
    view.addEventListener(kind, (event) => handle(/** @type {CustomEvent} */ (event).detail));
  onView("point", (point) => edit((session) => session.addPoint(point)));
  onView("box", (box) => edit((session) => session.setBox(box)));
  onView("hover", actions.hover);
  onView("cursor", ([x, y]) => actions.say(`Cursor at ${x}, ${y}.`));
  onView("split", (share) => {
    input("split").value = String(share * 100);
    actions.draw();
  });
  find("list").addEventListener("click", (event) => {
    const entry = /** @type {Element} */ (event.target).closest("li");
    if (entry) edit((session) => session.select(Number(entry.dataset.index)));
  });
  find("list").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    edit((session) => session.select(Math.max(0, Math.min(session.objects.length - 1, session.current + step))));
    event.preventDefault();
  });
  find("candidates").addEventListener("click", (event) => {
    const candidate = /** @type {Element} */ (event.target).closest("button");
    if (candidate) edit((session) => session.choose(Number(candidate.dataset.index)));
  });
  input("name").addEventListener("change", () => edit((session) => session.rename(input("name").value.trim() || session.object.name)));
  input("multimask").addEventListener("change", actions.refresh);
  input("compare").addEventListener("change", actions.refresh);
  input("way").addEventListener("change", () => actions.setWay(input("way").value));
  input("split").addEventListener("input", actions.draw);
  input("level").addEventListener("change", () => actions.setLevel(Number(input("level").value)));
  input("least").addEventListener("input", () => actions.setLeast(Number(input("least").value)));
  document.addEventListener("keydown", (event) => {
    if (view.isOpen && shortcut(event)) event.preventDefault();
  });
}

/**
 * Press the control that a key stands for; return whether there is one.
 * @param {KeyboardEvent} event
 */
function shortcut(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (target.matches("input[type=text], input[type=password]")) return false;
  const key = event.key.toLowerCase();
  const isCommand = event.ctrlKey || event.metaKey;
  if (event.altKey) return false;
  /** @type {HTMLElement | undefined} */
  let control;
  if (isCommand) control = { z: button(event.shiftKey ? "redo" : "undo"), y: button("redo") }[key];
  else if ("123".includes(key)) control = /** @type {HTMLElement} */ (find("candidates").children[Number(key) - 1]);
  else control = { n: button("add"), delete: button("remove"), e: button("everything"), c: input("compare") }[key];
  control?.click();
  return control !== undefined;
}
