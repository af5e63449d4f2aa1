/** Corral's management API, as far as a preview needs it. */
import type { Problem, Props, SourceFile } from "../shared/protocol";

export interface Artifact {
  id: string;
  name: string;
  kind: string;
  media_type: string;
  title: string;
  version: number;
  number: number;
  updated_at: number;
  run: string | null;
  step: string | null;
}

export type PropType =
  | "string" | "number" | "boolean" | "enum" | "color" | "array" | "object" | "function" | "node" | "unknown";

export interface Prop {
  name: string;
  type: PropType;
  required: boolean;
  default: unknown;
  options: unknown[];
  doc: string;
}

export interface Preview {
  artifact: Artifact;
  kind: string;
  source: string;
  files: SourceFile[];
  sheets: string[];
  props: Prop[];
  problems: Problem[];
  component: string | null;
}

export interface Run {
  id: string;
  status: string;
  error: { message?: string } | null;
}

const KEY = "corral.key";
/** Props that nearly every component takes and nobody fills in by hand. */
const HIDDEN = new Set(["style", "className", "key", "ref"]);

/** An answer that is an error, in the server's own words. */
export class Refusal extends Error {
  constructor(readonly status: number, readonly code: string, message: string, readonly hint: string) {
    super(message);
  }
}

export const keep = (key: string): void => sessionStorage.setItem(KEY, key);

async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  const key = sessionStorage.getItem(KEY);
  if (key) headers.set("x-api-key", key);
  let answer: Response;
  try {
    answer = await fetch(`/api/v1/${path}`, { ...init, headers });
  } catch {
    throw new Refusal(0, "unreachable", "The server does not answer.", "Is it running?");
  }
  if (answer.ok) return answer;
  const told = (await answer.json().catch(() => null)) as { error?: Record<string, unknown> } | null;
  const { code = "error", message = `The server answered ${answer.status}.`, hint = "" } = told?.error ?? {};
  throw new Refusal(answer.status, String(code), String(message), String(hint));
}

/** What the API tells, put into the one form that the page uses. */
export async function preview(id: string, edition?: number): Promise<Preview> {
  const query = edition === undefined ? "" : `?edition=${edition}`;
  const answer = await ask(`artifacts/${encodeURIComponent(id)}/preview${query}`);
  const { preview: told } = (await answer.json()) as { preview: Record<string, unknown> };
  const artifact = told.artifact as Artifact;
  const component = told.component as string | { name?: string } | null;
  return {
    artifact,
    kind: String(told.kind ?? artifact.kind),
    source: String(told.source ?? ""),
    files: filesOf(told.files),
    sheets: (told.sheets ?? []) as string[],
    props: ((told.props ?? []) as Partial<Prop>[]).map(propOf).filter(({ name }) => !HIDDEN.has(name)),
    problems: (told.problems ?? []) as Problem[],
    component: typeof component === "string" ? component : (component?.name ?? null),
  };
}

function filesOf(told: unknown): SourceFile[] {
  if (!told || typeof told !== "object") return [];
  const list = Array.isArray(told) ? told : Object.entries(told).map(([name, held]) => fileOf(name, held));
  return list
    .map((file: Record<string, unknown>) => ({
      name: String(file.name),
      kind: String(file.kind ?? String(file.name).split(".").at(-1)),
      content: String(file.content ?? file.source ?? ""),
    }));
}

const fileOf = (name: string, held: unknown): object => (typeof held === "string" ? { name, content: held } : { name, ...(held as object) });

function propOf(told: Partial<Prop>): Prop {
  const { name = "", type = "unknown", required = false, doc = "" } = told;
  return { name, type, required, default: told.default ?? null, options: told.options ?? [], doc };
}

/** Save `source` as the artifact's next edition; refused with 412 when somebody else has changed it since `version`. */
export async function save(artifact: Artifact, source: string): Promise<void> {
  const headers = { "content-type": artifact.media_type || "text/plain", "if-match": `"${artifact.version}"` };
  await ask(`artifacts/${artifact.id}/content`, { method: "PUT", headers, body: source });
}

export type Form = "plain" | "framer" | "vite" | "html";

/** The saved edition of an artifact in a form, as a file with its name. */
export async function exported(id: string, form: Form): Promise<{ name: string; content: Blob; notes: string[] }> {
  const answer = await ask(`artifacts/${encodeURIComponent(id)}/export?form=${form}`);
  const said = answer.headers.get("content-disposition") ?? "";
  const name = /filename\*=UTF-8''([^;]+)/.exec(said)?.[1];
  const notes = JSON.parse(answer.headers.get("x-corral-notes") ?? "[]") as string[];
  return { name: name === undefined ? `${id}.txt` : decodeURIComponent(name), content: await answer.blob(), notes };
}

/** The artifacts that changed last. */
export async function newest(): Promise<Artifact[]> {
  return ((await (await ask("artifacts?limit=50")).json()) as { artifacts: Artifact[] }).artifacts;
}

export async function repair(id: string, error: string, model: string): Promise<Run> {
  const body = JSON.stringify(model ? { error, model } : { error });
  const answer = await ask(`artifacts/${id}/repair`, { method: "POST", headers: { "content-type": "application/json" }, body });
  return ((await answer.json()) as { run: Run }).run;
}

export async function models(): Promise<string[]> {
  const key = sessionStorage.getItem(KEY);
  const answer = await fetch("/v1/models", key ? { headers: { "x-api-key": key } } : {});
  if (!answer.ok) return [];
  return ((await answer.json()) as { data: { id: string }[] }).data.map(({ id }) => id);
}

/** A message of a run's events. */
export interface Event {
  type: string;
  status?: string;
  text?: string;
  run?: Run;
}

/** What happens in a run, until it ends. */
export async function* events(run: string, signal: AbortSignal): AsyncGenerator<Event> {
  const answer = await ask(`runs/${run}/events`, { headers: { accept: "text/event-stream" }, signal });
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value.replaceAll("\r\n", "\n");
    const parts = held.split("\n\n");
    held = parts.pop() ?? "";
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length === 0 || data[0] === "[DONE]") continue;
      yield JSON.parse(data.join("\n")) as Event;
    }
  }
}

export type { Problem, Props, SourceFile };
