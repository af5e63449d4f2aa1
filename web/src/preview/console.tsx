import { useEffect, useRef, type ReactNode } from "react";
import type { Failure, Line, Problem } from "../shared/protocol";
import type { Ending } from "./stage";

export interface Printed {
  lines: Line[];
  dropped: number;
}

export const NOTHING: Printed = { lines: [], dropped: 0 };
const KEPT = 500;

/** `printed` with more lines; the oldest beyond five hundred go. */
export function more(printed: Printed, lines: Line[], dropped: number): Printed {
  const all = [...printed.lines, ...lines];
  const over = Math.max(0, all.length - KEPT);
  return { lines: all.slice(over), dropped: printed.dropped + dropped + over };
}

export function Console({ printed, clear }: { printed: Printed; clear: () => void }): ReactNode {
  const end = useRef<HTMLDivElement>(null);
  useEffect(() => {
    end.current?.scrollIntoView({ block: "nearest" });
  }, [printed]);
  return (
    <div className="console">
      <button type="button" className="plain" onClick={clear} disabled={printed.lines.length === 0}>Clear</button>
      <div role="log" aria-label="Console" tabIndex={0}>
        {printed.dropped > 0 && <p className="quiet">{printed.dropped} lines are not shown.</p>}
        {printed.lines.length === 0 && <p className="quiet">Nothing was printed.</p>}
        {printed.lines.map(({ level, text }, index) => (
          <pre key={printed.dropped + index} className={`line ${level}`}><b>{level === "log" ? "" : `${level} `}</b>{text}</pre>
        ))}
        <div ref={end} />
      </div>
    </div>
  );
}

const ENDINGS: Record<Ending, string> = {
  hung: "The preview did not answer for four seconds and was stopped: it seems to be in an endless loop.",
  flood: "The preview sent too many messages and was stopped.",
  left: "The preview tried to go to another address and was stopped.",
  dead: "The preview did not start.",
};

const KINDS: Record<Failure["kind"], string> = {
  load: "It cannot be run", render: "It threw while rendering", run: "It threw", refused: "Refused",
};

/** What is wrong, in words that a model is given, too; empty where nothing is. */
export function wrongs(problems: Problem[], failures: Failure[], ended: Ending | null): string[] {
  const where = ({ file, line, column }: Problem): string =>
    [file, line, column].filter((part) => part !== undefined).join(":");
  return [
    ...problems.map((problem) => [where(problem), problem.message].filter(Boolean).join(": ")),
    ...failures.map(({ kind, message, stack }) => `${KINDS[kind] ?? "Wrong"}: ${message}${stack ? `\n${stack}` : ""}`),
    ...(ended ? [ENDINGS[ended]] : []),
  ];
}

export function Wrongs({ wrong }: { wrong: string[] }): ReactNode {
  if (wrong.length === 0) return null;
  return (
    <div className="wrongs" role="alert">
      {wrong.map((text, index) => <pre key={index}>{text}</pre>)}
    </div>
  );
}
