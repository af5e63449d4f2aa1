/** One page of HTML.
 *
 * The frame's policy lets in no script but its own, so that a frame within it, which would have a window of its own with
 * everything in it that was taken from this one, can run nothing. So the page's scripts come beside it, as text, and are
 * run here in their order; and handlers that stand in attributes are made of them.
 */
import { fail, say } from "../inside/port";
import { GUARD } from "../shared/words";
import type { WholePage } from "../shared/protocol";
import { tellPainted } from "./component";
import { guard } from "./guard";
import { evaluate, Modules } from "./modules";

type Handler = (this: Element, event: Event) => unknown;

export function put(page: WholePage): void {
  if (document.readyState === "complete") write(page);
  else addEventListener("load", () => write(page), { once: true });
}

function write({ html, modules, order }: WholePage): void {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  new MutationObserver((records) => {
    for (const { addedNodes } of records) addedNodes.forEach(handle);
  }).observe(document, { childList: true, subtree: true });
  document.replaceChild(document.adoptNode(parsed.documentElement), document.documentElement);
  handle(document.documentElement);
  const program = new Modules(modules);
  Object.defineProperty(window, GUARD, { value: guard });
  Object.assign(window, program.globals);
  for (const name of order) {
    try {
      program.load(name);
    } catch (error) {
      fail("load", error);
    }
  }
  // These have been already; whoever waits for them does so since a moment ago.
  document.dispatchEvent(new Event("DOMContentLoaded", { bubbles: true }));
  window.dispatchEvent(new Event("load"));
  say({ type: "rendered", turn: 0 });
  tellPainted(0);
}

const handled = new WeakSet<Element>();

/** Make handlers of the attributes (`onclick="…"`) of a node and all in it. */
function handle(node: Node): void {
  if (!(node instanceof Element)) return;
  for (const element of [node, ...node.querySelectorAll("*")]) {
    if (handled.has(element)) continue;
    handled.add(element);
    for (const { name, value } of [...element.attributes]) {
      if (/^on[a-z]+$/.test(name)) listen(element, name.slice(2), value);
    }
  }
}

function listen(element: Element, type: string, code: string): void {
  let run: Handler;
  try {
    run = evaluate(`(function (event) {${code}\n})`) as Handler;
  } catch (error) {
    fail("load", error);
    return;
  }
  // Of the body these are the window's, as in any page.
  const target = element === document.body && ["load", "resize", "hashchange", "message"].includes(type) ? window : element;
  target.addEventListener(type, (event) => {
    if (run.call(element, event) === false) event.preventDefault();
  });
}
