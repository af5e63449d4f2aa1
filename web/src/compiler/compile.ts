/** TSX, JSX, TypeScript and JavaScript to CommonJS modules that guard their loops; other files as they are. */
import { transformSync, type PluginItem } from "@babel/core";
import commonjs from "@babel/plugin-transform-modules-commonjs";
import jsx from "@babel/plugin-transform-react-jsx";
import typescript from "@babel/plugin-transform-typescript";
import type { Module, Problem, SourceFile } from "../shared/protocol";
import { guardLoops } from "./guard";
import { shareTop } from "./share";

const SCRIPTS = new Set(["tsx", "jsx", "ts", "js"]);
const REMEMBERED = 64;
/** Characters of a file beyond which compiling it takes longer than anybody waits. */
const LARGEST = 2_000_000;
const known = new Map<string, Module>();

export function compileAll(files: SourceFile[]): { modules: Module[]; problems: Problem[] } {
  const modules: Module[] = [];
  const problems: Problem[] = [];
  for (const file of files) {
    try {
      modules.push(compile(file));
    } catch (error) {
      problems.push(told(file, error));
    }
  }
  return { modules, problems };
}

function compile(file: SourceFile): Module {
  const { name, kind, content } = file;
  if (kind !== "classic" && !SCRIPTS.has(kind)) return { name, kind: otherKind(kind), code: content };
  if (content.length > LARGEST) throw new Error("It is larger than two million characters, and is not compiled.");
  const key = `${kind}\n${name}\n${content}`;
  let found = known.get(key);
  if (found === undefined) {
    found = { name, kind: kind === "classic" ? "classic" : "script", code: transform(file) };
    if (known.size >= REMEMBERED) known.delete(known.keys().next().value as string);
    known.set(key, found);
  }
  return found;
}

function otherKind(kind: string): Module["kind"] {
  if (kind === "css" || kind === "json") return kind;
  return kind === "svg" ? "image" : "text";
}

function transform({ name, kind, content }: SourceFile): string {
  const markup = kind !== "ts";
  const classic = kind === "classic";
  const typed = kind === "tsx" || kind === "ts";
  const plugins: PluginItem[] = [
    ...(typed ? [[typescript, { isTSX: markup, allExtensions: true, allowDeclareFields: true }] as PluginItem] : []),
    ...(markup ? [[jsx, { runtime: "automatic", throwIfNamespace: false }] as PluginItem] : []),
    classic ? shareTop : [commonjs, { strictMode: true, allowTopLevelThis: false }],
    guardLoops,
  ];
  const done = transformSync(content, {
    plugins,
    filename: name,
    sourceType: classic ? "script" : "module",
    babelrc: false,
    configFile: false,
    comments: false,
    // So that a line in a message is the line in the editor.
    retainLines: true,
    highlightCode: false,
    parserOpts: { errorRecovery: false },
  });
  return done?.code ?? "";
}

function told(file: SourceFile, error: unknown): Problem {
  const { message, loc } = error as { message?: string; loc?: { line: number; column: number } };
  // Babel says the file, the place and a picture of the lines around it: the place is told apart, the picture is not.
  const said = (message ?? String(error)).split("\n")[0] ?? "";
  const bare = said.replace(/^\/?[^:]*: /, "").replace(/ \(\d+:\d+\)$/, "");
  return { file: file.name, ...(loc ? { line: loc.line, column: loc.column + 1 } : {}), message: bare };
}
