/** What code prints, sent in bundles: however much it prints, the page gets a few messages a second. */
import { LONGEST, type Level, type Line } from "../shared/protocol";
import { say } from "./port";

const LEVELS: Level[] = ["log", "info", "warn", "error", "debug"];
const MOST = 200;
const PAUSE = 50;
const later = setTimeout;

let waiting: Line[] = [];
let dropped = 0;
let planned = false;

export function print(level: Level, text: string): void {
  if (waiting.length < MOST) waiting.push({ level, text: text.slice(0, LONGEST) });
  else dropped += 1;
  if (planned) return;
  planned = true;
  later(flush, PAUSE);
}

function flush(): void {
  planned = false;
  say({ type: "console", lines: waiting, dropped });
  waiting = [];
  dropped = 0;
}

export function takeConsole(): void {
  for (const level of LEVELS) {
    console[level] = (...given: unknown[]): void => print(level, format(given));
  }
  for (const name of ["alert", "confirm", "prompt", "print"] as const) {
    const answer = { alert: undefined, confirm: true, prompt: null, print: undefined }[name];
    Object.assign(window, {
      [name]: (text: unknown = ""): unknown => {
        print("info", `${name}: ${show(text)}`);
        return answer;
      },
    });
  }
}

/** What a console shows: the first text may have places (`%s`, `%d`, `%o`, …) for what follows it. */
export function format(given: unknown[]): string {
  const rest = [...given];
  let text = "";
  if (typeof rest[0] === "string") {
    text = (rest.shift() as string).replace(/%([sdifoOc%])/g, (whole, kind: string) => {
      if (kind === "%") return "%";
      if (rest.length === 0) return whole;
      const value = rest.shift();
      return kind === "c" ? "" : typeof value === "string" ? value : show(value);
    });
  }
  return [text, ...rest.map(show)].filter((part, at) => at > 0 || part !== "").join(" ");
}

export function show(value: unknown, depth = 0): string {
  try {
    return shown(value, depth);
  } catch {
    return "(it cannot be shown)";
  }
}

function shown(value: unknown, depth: number): string {
  if (typeof value === "string") return depth === 0 ? value : JSON.stringify(value);
  if (typeof value === "function") return `function ${value.name || "(without a name)"}`;
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value !== "object" || value === null) return String(value);
  if (value instanceof Error) return `${value.name}: ${value.message}`;
  if (value instanceof Node) return value.nodeName.toLowerCase();
  if (value instanceof Event) return `event ${value.type}`;
  if (depth > 2) return Array.isArray(value) ? "[…]" : "{…}";
  if (Array.isArray(value)) return `[${some(value.map((item) => show(item, depth + 1)))}]`;
  if (value instanceof Map) return `Map ${show([...value], depth + 1)}`;
  if (value instanceof Set) return `Set ${show([...value], depth + 1)}`;
  return `{${some(Object.entries(value).map(([name, item]) => `${name}: ${show(item, depth + 1)}`))}}`;
}

function some(parts: string[]): string {
  return parts.length > 50 ? `${parts.slice(0, 50).join(", ")}, … ${parts.length - 50} more` : parts.join(", ");
}
