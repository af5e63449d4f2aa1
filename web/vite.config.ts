// The pages. The frames, which are single files, are built beside them by build.mjs.
import react from "@vitejs/plugin-react";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** What Babel asks of Node, as far as it is asked for by what we use of it. */
export const shims = {
  assert: here("src/compiler/shims/assert.cjs"),
  path: here("src/compiler/shims/path.ts"),
  "@babel/helper-compilation-targets": here("src/compiler/shims/targets.ts"),
};

export default defineConfig({
  root: here("."),
  base: "/ui/",
  plugins: [react()],
  resolve: { alias: shims },
  define: { "process.env.NODE_ENV": JSON.stringify("production"), "process.env": "{}", "process.platform": '"browser"' },
  worker: { format: "es" },
  build: {
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1500,
    rollupOptions: { input: { preview: here("preview.html") } },
  },
});
