/** Modules of a program: what they import is another file of it, or one of the libraries that the frame holds. */
import * as React from "react";
import * as ReactDOM from "react-dom";
import * as ReactDOMClient from "react-dom/client";
import * as jsxDev from "react/jsx-dev-runtime";
import * as jsx from "react/jsx-runtime";
import { GUARD } from "../shared/words";
import type { Module } from "../shared/protocol";
import * as framer from "./framer";
import { guard } from "./guard";

type Exports = Record<string, unknown>;

/** Called by another name it evaluates in the global scope, where no module of ours is seen. */
export const evaluate = eval as (code: string) => unknown;

const SUFFIXES = ["", ".tsx", ".ts", ".jsx", ".js", ".json", ".css", "/index.tsx", "/index.ts", "/index.jsx", "/index.js"];

export class Modules {
  /** Whether the program has put itself on the page. */
  mounted = false;
  private readonly files: Map<string, Module>;
  private readonly loaded = new Map<string, { exports: Exports }>();
  private readonly libraries: Record<string, unknown>;

  constructor(modules: Module[]) {
    this.files = new Map(modules.map((module) => [module.name, module]));
    const client = {
      ...ReactDOMClient,
      createRoot: (...given: Parameters<typeof ReactDOMClient.createRoot>) => {
        this.mounted = true;
        return ReactDOMClient.createRoot(...given);
      },
    };
    this.libraries = {
      react: React,
      "react-dom": { ...ReactDOM, ...client },
      "react-dom/client": client,
      "react/jsx-runtime": jsx,
      "react/jsx-dev-runtime": jsxDev,
      framer,
    };
  }

  /** The libraries as a page finds them that gets them by scripts of their own. */
  get globals(): Record<string, unknown> {
    return { React: this.libraries.react, ReactDOM: this.libraries["react-dom"] };
  }

  /** What the file exports. Throws what it throws. */
  load(name: string): Exports {
    const before = this.loaded.get(name);
    if (before) return before.exports;
    const file = this.files.get(name);
    if (!file) throw new Error(`There is no file ${name}.`);
    const module: { exports: Exports } = { exports: {} };
    this.loaded.set(name, module);
    if (file.kind === "classic") {
      evaluate(`${file.code}\n//# sourceURL=${name}`);
      return module.exports;
    }
    if (file.kind !== "script") {
      module.exports = asModule(file);
      return module.exports;
    }
    const run = evaluate(`(function (require, module, exports, ${GUARD}) {${file.code}\n})\n//# sourceURL=${name}`);
    const needed = (asked: string): unknown => this.need(asked, name);
    (run as (...given: unknown[]) => void)(needed, module, module.exports, guard);
    return module.exports;
  }

  private need(asked: string, from: string): unknown {
    if (Object.hasOwn(this.libraries, asked)) return this.libraries[asked];
    if (asked.startsWith(".") || asked.startsWith("/") || asked.startsWith("@/")) {
      const found = this.find(asked, from);
      if (found) return this.load(found);
      throw new Error(`${from} imports ${asked}, and there is no such file beside it.`);
    }
    const known = Object.keys(this.libraries).filter((name) => !name.includes("jsx")).join(", ");
    throw new Error(`${from} imports ${asked}: a preview has no network and no packages but ${known}.`);
  }

  private find(asked: string, from: string): string | undefined {
    const bare = asked.startsWith("@/") ? `src/${asked.slice(2)}` : asked.replace(/^\//, "");
    const base = asked.startsWith(".") ? from.split("/").slice(0, -1) : [];
    const parts = [...base];
    for (const part of bare.split("/")) {
      if (part === "..") parts.pop();
      else if (part !== "." && part !== "") parts.push(part);
    }
    const path = parts.join("/");
    const exact = SUFFIXES.map((suffix) => path + suffix).find((name) => this.files.has(name));
    // Models put files where they like: one of the same name is what was meant.
    const last = parts.at(-1) ?? "";
    return exact ?? [...this.files.keys()].find((name) => SUFFIXES.some((suffix) => name.split("/").at(-1) === last + suffix));
  }
}

function asModule(file: Module): Exports {
  if (file.kind === "css") return style(file);
  if (file.kind === "json") {
    const value: unknown = JSON.parse(file.code);
    return { __esModule: true, default: value, ...(typeof value === "object" ? value : {}) };
  }
  if (file.kind === "image") {
    return { __esModule: true, default: `data:image/svg+xml,${encodeURIComponent(file.code)}` };
  }
  return { __esModule: true, default: file.code };
}

/** A style sheet is in force once it is imported; of one with classes of its own, each class is called as it is. */
function style(file: Module): Exports {
  const element = document.createElement("style");
  element.dataset.file = file.name;
  element.textContent = file.code;
  document.head.append(element);
  const classes = new Proxy({}, { get: (_, name) => (typeof name === "string" ? name : undefined) });
  return { __esModule: true, default: file.name.includes(".module.") ? classes : file.code };
}
