import { useEffect, useState, type ReactNode } from "react";
import { newest, Refusal, type Artifact } from "./api";

/** The artifacts that changed last, where the address names none: one is opened by a click, several by their boxes. */
export function Choice({ refused }: { refused: (refusal: Refusal) => void }): ReactNode {
  const [found, know] = useState<Artifact[] | null>(null);
  const [said, say] = useState("Loading…");
  const [chosen, choose] = useState<string[]>([]);

  useEffect(() => {
    newest().then(know, (error: unknown) => {
      if (!(error instanceof Refusal)) throw error;
      if (error.status === 401) refused(error);
      say(`${error.message} ${error.hint}`);
    });
  }, [refused]);

  if (!found) return <p role="status" className="quiet">{said}</p>;
  if (found.length === 0) {
    return <p className="quiet">There is no artifact yet. Make some: <code>corral pipeline run FILE --project NAME</code></p>;
  }
  const [first, ...others] = chosen;
  return (
    <section className="choice" aria-labelledby="choice">
      <header>
        <h2 id="choice">Artifacts that changed last</h2>
        <span className="grow" />
        {first !== undefined && others.length > 0 && <a className="button" href={addressOf(first, others)}>Side by side ({chosen.length})</a>}
      </header>
      <ul>
        {found.map(({ id, name, title, kind, number, step, updated_at: changed }) => (
          <li key={id}>
            <input
              type="checkbox" aria-label={`${name} beside others`} checked={chosen.includes(id)} disabled={chosen.length > 5 && !chosen.includes(id)}
              onChange={(event) => choose((old) => (event.target.checked ? [...old, id] : old.filter((one) => one !== id)))}
            />
            <div>
              <a href={addressOf(id)} dir="auto">{title || name}</a>{" "}
              <span className="quiet">
                {[title ? name : "", kind, `edition ${number}`, step ?? "", new Date(changed * 1000).toLocaleString()].filter(Boolean).join(" · ")}
              </span>
            </div>
          </li>
        ))}
      </ul>
    </section>
  );
}

function addressOf(id: string, others: string[] = []): string {
  return `?${new URLSearchParams([["artifact", id], ...others.map((other) => ["with", other])]).toString()}`;
}
