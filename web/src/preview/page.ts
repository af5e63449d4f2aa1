/** HTML, SVG and Markdown as one page of HTML that needs nothing else. */
import { marked } from "marked";
import type { SourceFile } from "../shared/protocol";

const PROSE = `<style>
body { font: 16px/1.6 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: CanvasText; background: Canvas }
pre, code { font-family: ui-monospace, monospace; font-size: .9em } pre { overflow: auto; padding: .8em; border: 1px solid color-mix(in srgb, CanvasText 20%, Canvas); border-radius: 6px }
table { border-collapse: collapse } td, th { border: 1px solid color-mix(in srgb, CanvasText 25%, Canvas); padding: .3em .6em } img { max-width: 100% }
blockquote { margin-left: 0; padding-left: 1em; border-left: 3px solid color-mix(in srgb, CanvasText 25%, Canvas) }
</style>`;
const CENTRED = `<style>html, body { height: 100%; margin: 0 } body { display: grid; place-items: center; background: Canvas } svg { max-width: 100%; max-height: 100vh }</style>`;

export function pageOf(kind: string, text: string, files: SourceFile[]): string {
  if (kind === "markdown") return `<!doctype html>${PROSE}${marked.parse(text, { async: false })}`;
  if (kind === "svg") return `<!doctype html>${CENTRED}${text.replace(/^\s*<\?xml[^>]*\?>/, "")}`;
  return joined(text, files);
}

/** The page with the style sheets, scripts and images that lie beside it put into it, as no frame can fetch them. */
function joined(html: string, files: SourceFile[]): string {
  if (files.length === 0) return html;
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
  for (const script of page.querySelectorAll<HTMLScriptElement>("script[src]")) {
    const file = beside(script.getAttribute("src"));
    if (!file) continue;
    script.removeAttribute("src");
    // A script in the text runs where it stands; what waits for the page does so as a module.
    if (script.defer) script.type = "module";
    script.textContent = file.content.replaceAll("</script", "<\\/script");
  }
  for (const image of page.querySelectorAll("img[src]")) {
    const file = beside(image.getAttribute("src"));
    if (file?.kind === "svg") image.setAttribute("src", `data:image/svg+xml,${encodeURIComponent(file.content)}`);
  }
  return `<!doctype html>${page.documentElement.outerHTML}`;
}
