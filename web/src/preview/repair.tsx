import { useEffect, useId, useRef, useState, type ReactNode } from "react";
import { events, models, Refusal, repair } from "./api";

interface RepairProps {
  id: string;
  wrong: string[];
  /** Saves what was edited, so that the model is given what is seen. False: it could not. */
  before: () => Promise<boolean>;
  done: () => void;
}

/** Sends what is wrong to a model, which writes the artifact's next edition. */
export function Repair({ id, wrong, before, done }: RepairProps): ReactNode {
  const list = useId();
  const [model, choose] = useState("");
  const [known, know] = useState<string[]>([]);
  const [state, set] = useState<{ busy: boolean; said: string; text: string }>({ busy: false, said: "", text: "" });
  const leaving = useRef<AbortController | null>(null);

  useEffect(() => () => leaving.current?.abort(), []);

  async function begin(): Promise<void> {
    const abort = new AbortController();
    leaving.current = abort;
    set({ busy: true, said: "Asking…", text: "" });
    try {
      if (!(await before())) throw new Refusal(0, "unsaved", "What was edited could not be saved.", "");
      const run = await repair(id, wrong.join("\n\n"), model.trim());
      const ended = await follow(run.id, abort.signal, (text) => set((old) => ({ ...old, said: "Repairing…", text })));
      if (ended !== "completed") throw new Refusal(0, "run", `The repair ended as ${ended}.`, `See the run ${run.id}.`);
      set({ busy: false, said: "Repaired.", text: "" });
      done();
    } catch (error) {
      if (abort.signal.aborted) return;
      const said = error instanceof Refusal ? `${error.message} ${error.hint}` : String(error);
      set({ busy: false, said, text: "" });
    }
  }

  return (
    <form className="repair" aria-label="Repair" onSubmit={(event) => { event.preventDefault(); void begin(); }}>
      <label>
        Model
        <input
          type="text" list={list} value={model} placeholder="the one that wrote it" autoComplete="off"
          onFocus={() => void models().then(know)} onChange={(event) => choose(event.target.value)}
        />
      </label>
      <datalist id={list}>{known.map((name) => <option key={name} value={name} />)}</datalist>
      <button type="submit" disabled={state.busy || wrong.length === 0}>Ask for a repair</button>
      <p role="status">{state.said}</p>
      {state.text && <pre className="answer">{state.text}</pre>}
    </form>
  );
}

/** How the run ended; `tell` is given the answer as it comes. */
async function follow(run: string, signal: AbortSignal, tell: (text: string) => void): Promise<string> {
  let text = "";
  for await (const event of events(run, signal)) {
    if (event.type === "text") tell((text += event.text ?? "").slice(-2_000));
    if (event.type === "end") return event.status ?? "completed";
    const status = event.run?.status;
    if (status === "completed" || status === "failed" || status === "cancelled") return status;
  }
  return "unknown";
}
