/** The compiler, beside the page, so that typing never waits for it. It reads what strangers wrote and runs none of it. */
import type { Compiled, CompileRequest } from "../shared/protocol";
import { compileAll } from "./compile";

onmessage = ({ data }: MessageEvent<CompileRequest>): void => {
  const begun = performance.now();
  const { modules, problems } = compileAll(data.files);
  const answer: Compiled = { id: data.id, modules, problems, ms: performance.now() - begun };
  postMessage(answer);
};
