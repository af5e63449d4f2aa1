/** The page's end of the compiler: of several requests for one program only the last is answered. */
import type { Compiled, CompileRequest, SourceFile } from "../shared/protocol";

let worker: Worker | null = null;
let ids = 0;
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
  worker.postMessage(request);
  return new Promise((resolve) => waiting.set(id, { by, resolve }));
}
