import { useEffect, useRef, useState, type ReactNode } from "react";
import { exported, Refusal, type Form } from "./api";

const COMPONENT: [Form, string][] = [["plain", "The file"], ["framer", "For Framer"], ["vite", "A Vite project"], ["html", "One page"]];

/** What an artifact of a kind can be taken away as. */
function formsOf(kind: string, component: boolean): [Form, string][] {
  if (component) return COMPONENT;
  return COMPONENT.filter(([form]) => form !== "framer" && (form !== "vite" || ["html", "js", "ts"].includes(kind)));
}

interface ExportProps {
  id: string;
  name: string;
  kind: string;
  component: boolean;
  say: (text: string) => void;
}

/** Takes the saved edition away as a file, in one of its forms. */
export function Export({ id, name, kind, component, say }: ExportProps): ReactNode {
  const menu = useRef<HTMLDetailsElement>(null);
  const [busy, work] = useState(false);

  useEffect(() => {
    const close = (event: Event): void => {
      if (menu.current && !menu.current.contains(event.target as Node)) menu.current.open = false;
    };
    addEventListener("pointerdown", close);
    return () => removeEventListener("pointerdown", close);
  }, []);

  function shut(): void {
    if (!menu.current) return;
    menu.current.open = false;
    menu.current.querySelector("summary")?.focus();
  }

  async function take(form: Form): Promise<void> {
    work(true);
    shut();
    try {
      const file = await exported(id, form);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(file.content);
      link.download = file.name;
      link.click();
      window.setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser reads it in its own time
      say([`${file.name} is exported.`, ...file.notes].join(" "));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      say(`It was not exported. ${error.message} ${error.hint}`);
    } finally {
      work(false);
    }
  }

  return (
    <details className="export" ref={menu} onKeyDown={(event) => { if (event.key === "Escape") shut(); }}>
      <summary aria-label={`Export ${name}`}>Export</summary>
      <div>
        {formsOf(kind, component).map(([form, label]) => (
          <button key={form} type="button" className="plain" disabled={busy} onClick={() => void take(form)}>{label}</button>
        ))}
      </div>
    </details>
  );
}
