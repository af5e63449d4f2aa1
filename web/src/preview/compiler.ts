/** The page's end of the compiler: of several requests for one program only the last is answered. */
import type { Compiled, CompileRequest, SourceFile } from "../shared/protocol";

let worker: Worker | null = null;
let ids = 0;
/** Milliseconds after which a compiler that has not answered is given up. */
const PATIENCE = 20_000;
const waiting = new Map<number, { by: object; resolve: (compiled: Compiled | null) => void }>();

function begin(): Worker {
  const started = new Worker(new URL("../compiler/worker.ts", import.meta.url), { type: "module", name: "compiler" });
  started.onmessage = ({ data }: MessageEvent<Compiled>): void => {
    waiting.get(data.id)?.resolve(data);
    waiting.delete(data.id);
  };
  return started;
}

/** Have the compiler ready before it is needed. */
export function warm(): void {
  worker ??= begin();
}

/** The files as modules; null when `by` has asked anew meanwhile. */
export function compile(files: SourceFile[], by: object): Promise<Compiled | null> {
  worker ??= begin();
  const id = (ids += 1);
  for (const [other, entry] of waiting) {
    if (entry.by === by) {
      entry.resolve(null);
      waiting.delete(other);
    }
  }
  const request: CompileRequest = { id, files };
  window.setTimeout(() => giveUp(id), PATIENCE);
  worker.postMessage(request);
  return new Promise((resolve) => waiting.set(id, { by, resolve }));
}

/** What no compiler gets through is told; the next file gets another compiler. */
function giveUp(id: number): void {
  const entry = waiting.get(id);
  if (!entry) return;
  waiting.delete(id);
  worker?.terminate();
  worker = null;
  entry.resolve({ id, modules: [], problems: [{ message: "It could not be compiled within twenty seconds." }], ms: PATIENCE });
}
