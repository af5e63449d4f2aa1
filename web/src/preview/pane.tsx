import { useCallback, useEffect, useMemo, useRef, useState, type ReactNode } from "react";
import type { Failure, Problem, Props, SourceFile, Theme } from "../shared/protocol";
import { preview as load, Refusal, save, type Preview } from "./api";
import { compile } from "./compiler";
import { Console, more, NOTHING, Wrongs, wrongs, type Printed } from "./console";
import { Editor } from "./editor";
import { Export } from "./export";
import { PropsForm } from "./form";
import { pageOf } from "./page";
import { Repair } from "./repair";
import { Stage, type Ending, type StageEvent } from "./stage";
import { Tabs } from "./tabs";
import { given, samples } from "./values";

/** Milliseconds after the last key until what was typed is shown. */
const PAUSE = 80;

export interface SharedChange {
  name: string;
  value: unknown;
  from: string;
}

interface PaneProps {
  id: string;
  theme: Theme;
  shared: SharedChange | null;
  share: (change: SharedChange) => void;
  refused: (refusal: Refusal) => void;
}

type Form = "component" | "page" | "text";

function formOf(shown: Preview): Form {
  if (["html", "svg", "markdown"].includes(shown.kind)) return "page";
  if (["tsx", "jsx"].includes(shown.kind)) return "component";
  return ["ts", "js"].includes(shown.kind) && shown.component !== null ? "component" : "text";
}

/** One artifact: what it looks like, its props, its code and what it printed. */
export function Pane({ id, theme, shared, share, refused }: PaneProps): ReactNode {
  const [shown, setShown] = useState<Preview | null>(null);
  const [code, setCode] = useState("");
  const [values, setValues] = useState<Props>({});
  const [said, say] = useState("");

  const reload = useCallback(async () => {
    try {
      const found = await load(id);
      setShown(found);
      setCode(found.source);
      setValues((old) => ({ ...samples(found.props), ...kept(old, found) }));
      return true;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (error.status === 401) refused(error);
      say(`${error.message} ${error.hint}`);
      return false;
    }
  }, [id, refused]);
  useEffect(() => void reload(), [reload]);

  const change = useCallback((name: string, value: unknown) => {
    performance.mark("corral:props");
    setValues((old) => ({ ...old, [name]: value }));
    share({ name, value, from: id });
  }, [id, share]);
  useEffect(() => {
    if (shared && shared.from !== id && shown?.props.some(({ name }) => name === shared.name)) {
      setValues((old) => ({ ...old, [shared.name]: shared.value }));
    }
  }, [shared, id, shown]);

  const dirty = shown !== null && code !== shown.source;
  const keep = useCallback(async (): Promise<boolean> => {
    if (!shown || code === shown.source) return true;
    try {
      await save(shown.artifact, code);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      const stale = error.status === 412 ? " Somebody else has saved it meanwhile: copy what is yours, then load it anew." : "";
      say(`It was not saved. ${error.message}${stale}`);
      return false;
    }
    say("Saved as a new edition.");
    return reload();
  }, [shown, code, reload]);

  useEffect(() => {
    if (shown) document.title = `${shown.artifact.title || shown.artifact.name} · Corral`;
  }, [shown]);

  if (!shown && said) return <section className="pane"><p role="alert">{said} <a href="?">See those that there are.</a></p></section>;
  if (!shown) return <section className="pane"><p role="status" className="quiet">Loading…</p></section>;
  const { artifact } = shown;
  return (
    <section className="pane" aria-label={artifact.name} data-artifact={id}>
      <header>
        <h2>{artifact.title || artifact.name}</h2>
        <span className="quiet">{artifact.title ? `${artifact.name} · ` : ""}{shown.kind} · edition {artifact.number}{artifact.step ? ` · ${artifact.step}` : ""}</span>
        <span className="grow" />
        <span role="status">{said}</span>
        <span className="actions">
          <Export id={id} name={artifact.name} kind={shown.kind} component={formOf(shown) === "component"} say={say} />
          {dirty && <button type="button" className="plain" onClick={() => setCode(shown.source)}>Discard</button>}
          <button type="button" onClick={() => void keep()} disabled={!dirty}>Save</button>
        </span>
      </header>
      <Shown {...{ shown, code, setCode, values, setValues, change, theme, keep, reload }} />
    </section>
  );
}

/** What was chosen before, of the props that are still there. */
function kept(old: Props, found: Preview): Props {
  const names = new Set(found.props.map(({ name }) => name));
  return Object.fromEntries(Object.entries(old).filter(([name, value]) => names.has(name) && value !== undefined));
}

interface ShownProps {
  shown: Preview;
  code: string;
  setCode: (code: string) => void;
  values: Props;
  setValues: (values: Props) => void;
  change: (name: string, value: unknown) => void;
  theme: Theme;
  keep: () => Promise<boolean>;
  reload: () => Promise<boolean>;
}

function Shown({ shown, code, setCode, values, setValues, change, theme, keep, reload }: ShownProps): ReactNode {
  const form = formOf(shown);
  const host = useRef<HTMLDivElement>(null);
  const live = useLive(shown, code, values, theme, form, host);
  const wrong = wrongs(live.problems, live.failures, live.ended);
  const number = wrong.length === 0 ? "" : ` (${wrong.length})`;
  const edit = (text: string): void => {
    performance.mark("corral:code");
    setCode(text);
  };
  return (
    <div className={`shown ${form}`}>
      {form !== "text" && (
        <div className="stage">
          <div className="host" ref={host} data-turn={live.painted} data-ended={live.ended ?? undefined} />
          {form === "component" && wrong[0] !== undefined && !live.ended && <p className="bar">{wrong[0].split("\n")[0]}</p>}
          {live.ended && <button type="button" className="again" onClick={live.again}>Run again</button>}
        </div>
      )}
      <Tabs
        label={shown.artifact.name}
        tabs={[
          ...(form === "component"
            ? [{ name: "Props", body: <PropsForm props={shown.props} values={values} change={change} reset={() => setValues(samples(shown.props))} /> }]
            : []),
          { name: "Code", body: <Editor kind={shown.kind} label={`Code of ${shown.artifact.name}`} text={code} change={edit} save={() => void keep()} /> },
          ...(form === "text" ? [] : [{ name: "Console", body: <Console printed={live.printed} clear={live.clear} /> }]),
          {
            name: `Errors${number}`,
            body: (
              <>
                {wrong.length === 0 && <p className="quiet">Nothing is wrong.</p>}
                <Wrongs wrong={wrong} />
                <Repair id={shown.artifact.id} wrong={wrong} before={keep} done={() => void reload()} />
              </>
            ),
          },
        ]}
        alarm={wrong.length > 0}
      />
    </div>
  );
}

interface Live {
  problems: Problem[];
  failures: Failure[];
  ended: Ending | null;
  printed: Printed;
  painted: number;
  clear: () => void;
  again: () => void;
}

/** Keeps a stage showing the program as it is edited, and tells what it says. */
function useLive(
  shown: Preview, code: string, values: Props, theme: Theme, form: Form, host: React.RefObject<HTMLDivElement | null>,
): Live {
  const stage = useRef<Stage | null>(null);
  const [problems, setProblems] = useState<Problem[]>([]);
  const [failures, setFailures] = useState<Failure[]>([]);
  const [ended, setEnded] = useState<Ending | null>(null);
  const [printed, print] = useState(NOTHING);
  const [painted, paint] = useState(-1);
  const [round, setRound] = useState(0);
  const turn = useRef(0);
  const begun = useRef<string | null>(null);
  const latest = useRef({ values, theme });
  latest.current = { values, theme };

  const hear = useCallback((event: StageEvent) => {
    if (event.type === "console") print((old) => more(old, event.lines, event.dropped));
    else if (event.type === "error") setFailures((old) => (old.length < 20 ? [...old, event.failure] : old));
    else if (event.type === "ended") setEnded(event.why);
    else if (event.type === "painted") {
      measure(event.turn);
      paint(event.turn);
    }
  }, []);

  useEffect(() => {
    if (form === "text" || !host.current) return undefined;
    const made = new Stage(host.current, `Preview of ${shown.artifact.name}`, hear);
    stage.current = made;
    begun.current = null;
    return () => made.close();
  }, [form, shown.artifact.name, hear, host]);

  const files = useMemo((): SourceFile[] => {
    const beside = shown.files.filter(({ name }) => name !== shown.artifact.name);
    return [{ name: shown.artifact.name, kind: shown.kind, content: code }, ...beside];
  }, [shown, code]);

  useEffect(() => {
    if (form === "text") {
      setProblems(code === shown.source ? shown.problems : []);
      return undefined;
    }
    const asked = { stale: false };
    const begin = async (): Promise<void> => {
      const again = begun.current !== null;
      begun.current = code;
      const page = form === "page" ? pageOf(shown.kind, code, files) : null;
      const compiled = await compile(page?.files ?? files, stage);
      if (!compiled || asked.stale) return;
      setProblems([...(page && code === shown.source ? shown.problems : []), ...compiled.problems]);
      if (compiled.problems.length > 0 && !page) return;
      const { modules } = compiled;
      const { theme, values } = latest.current;
      if (page) {
        const order = page.order.filter((name) => modules.some((module) => module.name === name));
        start(() => stage.current?.show({ type: "page", page: { html: page.html, modules, order, own: shown.kind === "html" }, theme }, again));
        return;
      }
      const program = {
        modules, entry: shown.artifact.name, component: shown.component, sheets: shown.sheets, given: given(shown.props, values),
      };
      start(() => stage.current?.show({ type: "render", program, theme }, again));
    };
    const start = (show: () => void): void => {
      setFailures([]);
      setEnded(null);
      print(NOTHING);
      turn.current = 0;
      show();
    };
    const timer = window.setTimeout(() => void begin(), begun.current === null ? 0 : PAUSE);
    return () => {
      asked.stale = true;
      window.clearTimeout(timer);
    };
  }, [files, shown, form, code, round]);

  useEffect(() => {
    if (form !== "component" || begun.current === null) return;
    turn.current += 1;
    setFailures((old) => (old.some(({ kind }) => kind === "render") ? old.filter(({ kind }) => kind !== "render") : old));
    stage.current?.send({ type: "props", turn: turn.current, given: given(shown.props, values) });
  }, [values, form, shown]);
  useEffect(() => {
    stage.current?.dress(theme);
  }, [theme]);

  return {
    problems, failures, ended, printed, painted,
    clear: () => print(NOTHING),
    again: () => setRound((old) => old + 1),
  };
}

/** From the last edit to what is now on the screen, where the browser's own tools and our benchmark find it. */
function measure(turn: number): void {
  const mark = turn > 0 ? "corral:props" : "corral:code";
  if (performance.getEntriesByName(mark, "mark").length > 0) performance.measure(`${mark}:painted`, mark);
  performance.clearMarks(mark);
}
