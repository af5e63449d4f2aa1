import { useCallback, useEffect, useMemo, useState, type ReactNode } from "react";
import type { Theme } from "../shared/protocol";
import { keep, type Refusal } from "./api";
import { Choice } from "./choice";
import { warm } from "./compiler";
import { Pane, type SharedChange } from "./pane";
import { useTheme } from "./theme";

/** The artifacts that the address names: `?artifact=ID`, and `&with=ID` for each beside it. */
function asked(): string[] {
  const query = new URLSearchParams(location.search);
  return [...new Set([...query.getAll("artifact"), ...query.getAll("with")])].filter(Boolean).slice(0, 6);
}

export function App(): ReactNode {
  const ids = useMemo(asked, []);
  const [theme, setTheme] = useTheme();
  const [refusal, refuse] = useState<Refusal | null>(null);
  const [round, setRound] = useState(0);
  const [linked, link] = useState(true);
  const [shared, setShared] = useState<SharedChange | null>(null);
  const share = useCallback((change: SharedChange) => { if (linked) setShared(change); }, [linked]);
  useEffect(warm, []);

  return (
    <>
      <header className="top">
        <h1><a href="?">Corral <span className="quiet">preview</span></a></h1>
        <span className="grow" />
        {ids.length > 1 && (
          <label className="check"><input type="checkbox" checked={linked} onChange={(event) => link(event.target.checked)} /> Same props for all</label>
        )}
        <ThemeChoice theme={theme} choose={setTheme} />
      </header>
      {refusal && (
        <KeyForm refusal={refusal} given={(key) => { keep(key); refuse(null); setRound(round + 1); }} />
      )}
      <main className={ids.length > 1 ? "beside" : ""}>
        {ids.length === 0 && !refusal && <Choice key={round} refused={refuse} />}
        {!refusal && ids.map((id) => <Pane key={`${id} ${round}`} id={id} theme={theme} shared={shared} share={share} refused={refuse} />)}
      </main>
    </>
  );
}

function ThemeChoice({ theme, choose }: { theme: Theme; choose: (theme: Theme) => void }): ReactNode {
  return (
    <button type="button" className="plain" aria-pressed={theme === "dark"} onClick={() => choose(theme === "dark" ? "light" : "dark")}>
      Dark
    </button>
  );
}

function KeyForm({ refusal, given }: { refusal: Refusal; given: (key: string) => void }): ReactNode {
  const [key, type] = useState("");
  return (
    <form className="key" onSubmit={(event) => { event.preventDefault(); given(key.trim()); }}>
      <h2>A key is needed</h2>
      <p role="alert">{refusal.message}</p>
      <label>Key <input type="password" autoComplete="off" value={key} onChange={(event) => type(event.target.value)} autoFocus /></label>
      <button type="submit" disabled={key.trim() === ""}>Go on</button>
      <p className="quiet">It is kept until this tab is closed.</p>
    </form>
  );
}
