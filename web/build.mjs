// Builds the pages and the frames, and puts them where Corral serves them from: src/corral/ui, or the folder named.
//
// The manifest comes last. It lists what may be served and nothing else, with the hashes that the frames' policies need.
import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build, loadConfigFromFile } from "vite";

const here = dirname(fileURLToPath(import.meta.url));
const made = await mkdtemp(join(here, ".build-"));
const target = process.argv[2] ?? join(here, "../src/corral/ui");
// React in the frame is the one for development: it says in words what a component does wrong, and models can read that.
const define = { "process.env.NODE_ENV": '"development"' };

/** One script as a single text, with everything it imports. */
async function whole(entry, name, more = {}) {
  const [result] = [await build({
    root: here, configFile: false, logLevel: "warn", define, ...more,
    build: {
      write: false, minify: true, copyPublicDir: false,
      lib: { entry: join(here, entry), formats: ["iife"], name, fileName: name },
    },
  })].flat();
  return result.output[0].code.trim();
}

/** A page that needs nothing but itself: its one script stands in it, and its policy lets in that script by its hash. */
async function frame() {
  const code = (await whole("src/frame/main.tsx", "frame")).replaceAll("</script", "<\\/script");
  const page = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Preview</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<script>${code}</script></head><body></body></html>
`;
  await writeFile(join(made, "frame.html"), page);
  return `sha256-${createHash("sha256").update(code).digest("base64")}`;
}

/** The script of components' own pages (`corral/workspace/exports/page.py`): the compiler and a React for production. */
async function single() {
  const { config } = await loadConfigFromFile({ command: "build", mode: "production" }, join(here, "vite.config.ts"));
  await writeFile(join(made, "single.js"), await whole("src/single/main.tsx", "single", { define: config.define, resolve: config.resolve }));
}

async function files(folder) {
  const found = await readdir(folder, { recursive: true, withFileTypes: true });
  return found.filter((entry) => entry.isFile()).map((entry) => relative(folder, join(entry.parentPath, entry.name)));
}

await build({ root: here, configFile: join(here, "vite.config.ts"), logLevel: "warn", build: { outDir: made } });
const scripts = { "frame.html": await frame() };
await single();
const kept = (await files(made)).sort();
const manifest = {};
for (const name of kept) {
  const { size } = await stat(join(made, name));
  manifest[name] = { size, ...(scripts[name] ? { script: scripts[name] } : {}) };
}

await mkdir(target, { recursive: true });
await rm(join(target, "manifest.json"), { force: true });
for (const name of await files(target)) {
  if (!name.startsWith(".") && !(name in manifest)) await rm(join(target, name));
}
await cp(made, target, { recursive: true });
await writeFile(join(target, "manifest.json.new"), JSON.stringify(manifest, null, 1) + "\n");
await rename(join(target, "manifest.json.new"), join(target, "manifest.json"));
await rm(made, { recursive: true });
const total = Object.values(manifest).reduce((sum, { size }) => sum + size, 0);
console.log(`web: ${kept.length} files, ${Math.round(total / 1024)} KiB, in ${relative(process.cwd(), target) || "."}`);
