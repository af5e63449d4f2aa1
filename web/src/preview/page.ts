/** HTML, SVG and Markdown as one page of HTML, with its scripts beside it. */
import { marked } from "marked";
import type { SourceFile } from "../shared/protocol";

const PROSE = `<style>
body { font: 16px/1.6 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: CanvasText; background: Canvas }
pre, code { font-family: ui-monospace, monospace; font-size: .9em } pre { overflow: auto; padding: .8em; border: 1px solid color-mix(in srgb, CanvasText 20%, Canvas); border-radius: 6px }
table { border-collapse: collapse } td, th { border: 1px solid color-mix(in srgb, CanvasText 25%, Canvas); padding: .3em .6em } img { max-width: 100% }
blockquote { margin-left: 0; padding-left: 1em; border-left: 3px solid color-mix(in srgb, CanvasText 25%, Canvas) }
</style>`;
const CENTRED = `<style>html, body { height: 100%; margin: 0 } body { display: grid; place-items: center; background: Canvas } svg { max-width: 100%; max-height: 100vh }</style>`;

/** `files` are what is to be compiled: the scripts, named in `order`, and what they may import. */
export interface Parted {
  html: string;
  files: SourceFile[];
  order: string[];
}

/** The page that the first of the files is; the others lie beside it. */
export function pageOf(kind: string, text: string, files: SourceFile[]): Parted {
  const name = files[0]?.name ?? "page";
  if (kind === "markdown") return parted(name, `${PROSE}${marked.parse(text, { async: false })}`, files.slice(1));
  if (kind === "svg") return parted(name, `${CENTRED}${text.replace(/^\s*<\?xml[^>]*\?>/, "")}`, files.slice(1));
  return parted(name, text, files.slice(1));
}

/** The page with the style sheets, scripts and images that lie beside it put into it, as no frame can fetch them. */
function parted(name: string, html: string, files: SourceFile[]): Parted {
  const named = new Map(files.map((file) => [file.name.split("/").at(-1) ?? "", file]));
  const beside = (address: string | null): SourceFile | undefined =>
    address && !/^([a-z]+:)?\/\//i.test(address) ? named.get(address.split(/[?#]/)[0]?.split("/").at(-1) ?? "") : undefined;
  // It is read here and not run: a document of the parser's own has no window.
  const page = new DOMParser().parseFromString(html, "text/html");
  for (const link of page.querySelectorAll<HTMLLinkElement>('link[rel~="stylesheet"][href]')) {
    const file = beside(link.getAttribute("href"));
    if (!file) continue;
    const style = page.createElement("style");
    style.textContent = file.content;
    link.replaceWith(style);
  }
  for (const image of page.querySelectorAll("img[src]")) {
    const file = beside(image.getAttribute("src"));
    if (file?.kind === "svg") image.setAttribute("src", `data:image/svg+xml,${encodeURIComponent(file.content)}`);
  }
  const scripts: SourceFile[] = [];
  for (const script of page.querySelectorAll("script")) {
    const kind = kindOf(script.getAttribute("type"));
    const address = script.getAttribute("src");
    if (kind === null || (address && /\breact(-dom)?[@/.]/.test(address))) {
      if (kind !== null) script.remove(); // React is there already
      continue;
    }
    const file = beside(address);
    if (address && !file) continue; // it is refused when it is asked for, and that is told
    scripts.push({ name: file?.name ?? `${name} script ${scripts.length + 1}`, kind, content: file?.content ?? script.textContent ?? "" });
    script.remove();
  }
  const taken = new Set(scripts.map((script) => script.name));
  const others = files.filter((file) => !taken.has(file.name) && file.kind !== "html");
  return { html: page.documentElement.outerHTML, files: [...scripts, ...others], order: scripts.map((script) => script.name) };
}

/** What a script of a type is compiled as; null for what is no script but data. */
function kindOf(type: string | null): string | null {
  const bare = (type ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
  if (bare === "" || bare.endsWith("javascript")) return "classic";
  if (bare === "module") return "js";
  return { "text/babel": "jsx", "text/jsx": "jsx", "text/typescript": "ts", "text/tsx": "tsx" }[bare] ?? null;
}
