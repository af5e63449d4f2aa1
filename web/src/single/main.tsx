/** The script of a page that holds one component and everything it needs: see `corral/workspace/exports/page.py`. */
import { Component, createElement, type ElementType, type ReactNode } from "react";
import { createRoot } from "react-dom/client";
import { compileAll } from "../compiler/compile";
import { Modules } from "../frame/modules";
import type { Props, SourceFile } from "../shared/protocol";

/** What the page says of its component. `component` is its name inside; `sheets` are style sheets that nothing imports. */
interface Given {
  files: SourceFile[];
  entry: string;
  component: string | null;
  sheets: string[];
  props: Props;
  functions: string[];
}

class Boundary extends Component<{ children: ReactNode }, { error: unknown }> {
  override state: { error: unknown } = { error: null };
  static getDerivedStateFromError(error: unknown): { error: unknown } {
    return { error: error ?? new Error("It threw nothing.") };
  }
  override render(): ReactNode {
    return this.state.error === null ? this.props.children : <Told text={String(this.state.error)} />;
  }
}

const Told = ({ text }: { text: string }): ReactNode => (
  <pre role="alert" style={{ color: "#b00020", whiteSpace: "pre-wrap", font: "14px/1.5 monospace" }}>{text}</pre>
);

function isComponent(value: unknown): value is ElementType {
  return typeof value === "function" || (typeof value === "object" && value !== null && "$$typeof" in value && !("props" in value));
}

function begin(given: Given): ReactNode {
  const { modules, problems } = compileAll(given.files);
  if (problems.length > 0) {
    return <Told text={problems.map(({ file, line, message }) => `${file}${line ? `:${line}` : ""}: ${message}`).join("\n")} />;
  }
  const program = new Modules(modules);
  for (const sheet of given.sheets) program.load(sheet);
  const exported = program.load(given.entry);
  if (program.mounted) return null;
  const capitals = Object.keys(exported).filter((name) => /^[A-Z]/.test(name)).map((name) => exported[name]);
  const named = given.component === null ? undefined : exported[given.component];
  const shown = [exported.default, named, ...capitals].find(isComponent);
  if (!shown) throw new Error(`${given.entry} exports no component.`);
  const functions = Object.fromEntries(given.functions.map((name) => [name, (): void => undefined]));
  return <Boundary>{createElement(shown, { ...functions, ...given.props })}</Boundary>;
}

const written = document.getElementById("corral-artifact")?.textContent ?? "{}";
let content: ReactNode;
try {
  content = begin(JSON.parse(written) as Given);
} catch (error) {
  content = <Told text={String(error)} />;
}
if (content !== null) createRoot(document.getElementById("corral") as HTMLElement).render(content);
