/** What the page, its compiler and its frames say to each other. Whatever a frame says is a stranger's word. */

export interface SourceFile {
  name: string;
  kind: string;
  content: string;
}

export interface Problem {
  file?: string;
  line?: number;
  column?: number;
  message: string;
}

/** A file as a frame takes it: a script compiled to a CommonJS module, one without modules, or a text of another kind. */
export interface Module {
  name: string;
  kind: "script" | "classic" | "css" | "json" | "text" | "image";
  code: string;
}

export interface CompileRequest {
  id: number;
  files: SourceFile[];
}

export interface Compiled {
  id: number;
  modules: Module[];
  problems: Problem[];
  ms: number;
}

export type Props = Record<string, unknown>;

/** Props that can be sent: `functions` are those that the frame makes itself, each saying when it is called. */
export interface GivenProps {
  values: Props;
  functions: string[];
}

export interface Program {
  modules: Module[];
  /** Style sheets that nothing imports. */
  sheets: string[];
  entry: string;
  component: string | null;
  given: GivenProps;
}

/** A page of HTML without its scripts, and those: `order` names them as they are to be run. */
export interface WholePage {
  html: string;
  modules: Module[];
  order: string[];
  /** Whether its colours are its own: it is then as any browser shows it, on white where it says nothing. */
  own: boolean;
}

export type Theme = "light" | "dark";
export type Level = "log" | "info" | "warn" | "error" | "debug";

export type ToFrame =
  | { type: "render"; program: Program; theme: Theme }
  | { type: "page"; page: WholePage; theme: Theme }
  | { type: "props"; turn: number; given: GivenProps }
  | { type: "theme"; theme: Theme }
  | { type: "ping"; n: number };

export interface Line {
  level: Level;
  text: string;
}

/** `load`: a module could not be run; `refused`: the frame's policy held something back. */
export type ErrorKind = "load" | "render" | "run" | "refused";

export interface Failure {
  kind: ErrorKind;
  message: string;
  stack: string;
}

export type FromFrame =
  | { type: "rendered"; turn: number }
  | { type: "painted"; turn: number }
  | { type: "console"; lines: Line[]; dropped: number }
  | ({ type: "error" } & Failure)
  | { type: "pong"; n: number };

/** What a frame says once, to `parent`, with the port of all that follows. */
export const READY = "corral:ready";
/** Characters of a text from a frame that are kept. */
export const LONGEST = 10_000;
