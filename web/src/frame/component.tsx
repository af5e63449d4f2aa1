/** One React component: everything in it is a stranger's but this, which draws it and tells how that went. */
import { Component, createElement, useEffect, type ElementType, type ReactNode } from "react";
import { createRoot, type Root } from "react-dom/client";
import { print, show } from "../inside/lines";
import { fail, say } from "../inside/port";
import type { GivenProps, Program } from "../shared/protocol";
import { Modules } from "./modules";

const LOOK = "body { margin: 0; padding: 16px; font: 16px/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText }";

const frame = requestAnimationFrame.bind(window);
let root: Root | null = null;
let shown: ElementType | null = null;

/** Takes the place of what throws while it renders, until the next props. */
class Boundary extends Component<{ children: ReactNode }, { failed: boolean }> {
  override state = { failed: false };
  static getDerivedStateFromError(): { failed: boolean } {
    return { failed: true };
  }
  override render(): ReactNode {
    return this.state.failed ? null : this.props.children;
  }
}

/** Say when what was drawn is on the screen: in the task after the next picture. */
export function tellPainted(turn: number): void {
  const painted = new MessageChannel();
  painted.port1.onmessage = (): void => say({ type: "painted", turn });
  frame(() => painted.port2.postMessage(null));
}

function Shown({ turn, element }: { turn: number; element: ReactNode }): ReactNode {
  useEffect(() => {
    say({ type: "rendered", turn });
    tellPainted(turn);
  }, [turn]);
  return element;
}

const stubs = new Map<string, (...given: unknown[]) => void>();

function stub(name: string): (...given: unknown[]) => void {
  let found = stubs.get(name);
  if (!found) {
    found = (...given) => print("info", `${name}(${given.map((value) => show(value, 1)).join(", ")})`);
    stubs.set(name, found);
  }
  return found;
}

let failures = 0;
let boundary = 0;

/** Draw it with other props; what it keeps as its state stays. */
export function draw(turn: number, given: GivenProps): void {
  if (!shown || !root) return;
  const functions = Object.fromEntries(given.functions.map((name) => [name, stub(name)]));
  // A boundary that has caught something is made anew; one that has not keeps the component's state.
  if (failures > 0) boundary += 1;
  failures = 0;
  const element = <Boundary key={boundary}>{createElement(shown, { ...functions, ...given.values })}</Boundary>;
  root.render(<Shown turn={turn} element={element} />);
}

export function begin(program: Program): void {
  const style = document.createElement("style");
  style.textContent = LOOK;
  document.head.append(style);
  document.body.replaceChildren(place("corral"), place("root"));
  const modules = new Modules(program.modules);
  let exported: Record<string, unknown>;
  try {
    for (const sheet of program.sheets) modules.load(sheet);
    exported = modules.load(program.entry);
    // What nothing imports belongs to the component all the same: the server sends no other style sheets.
    for (const { name, kind } of program.modules) if (kind === "css") modules.load(name);
  } catch (error) {
    fail("load", error);
    return;
  }
  shown = chosen(exported, program.component);
  if (modules.mounted) {
    say({ type: "rendered", turn: 0 });
    tellPainted(0);
    return;
  }
  if (!shown) {
    fail("load", new Error(`${program.entry} exports no component: write "export default" before it.`));
    return;
  }
  const caught = (error: unknown): void => {
    failures += 1;
    fail("render", error);
  };
  root = createRoot(document.getElementById("corral") as HTMLElement, { onCaughtError: caught, onUncaughtError: caught });
  draw(0, program.given);
}

function place(id: string): HTMLElement {
  const element = document.createElement("div");
  element.id = id;
  return element;
}

function isComponent(value: unknown): value is ElementType {
  return typeof value === "function" || (typeof value === "object" && value !== null && "$$typeof" in value && !("props" in value));
}

/** The component to show: what is exported as the default, else the one that was named, else the first with a capital. */
function chosen(exported: Record<string, unknown>, named: string | null): ElementType | null {
  const capitals = Object.keys(exported).filter((name) => /^[A-Z]/.test(name));
  const candidates = [exported.default, named === null ? undefined : exported[named], ...capitals.map((name) => exported[name])];
  return candidates.find(isComponent) ?? null;
}
