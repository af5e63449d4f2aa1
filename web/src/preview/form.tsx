import { useId, useState, type ReactNode } from "react";
import type { Props } from "../shared/protocol";
import type { Prop } from "./api";

interface FormProps {
  props: Prop[];
  values: Props;
  change: (name: string, value: unknown) => void;
  reset: () => void;
}

/** Of more props than these one looks for the one that is meant. */
const MANY = 12;

/** A form for a component's props: each change is told at once. */
export function PropsForm({ props, values, change, reset }: FormProps): ReactNode {
  const [sought, seek] = useState("");
  if (props.length === 0) return <p className="quiet">This component takes no props.</p>;
  const fits = props.length > MANY ? sifted(props, sought) : new Set(props);
  return (
    <form className="props" onSubmit={(event) => event.preventDefault()} aria-label="Props">
      {props.length > MANY && (
        <div className="filter">
          <input
            type="search" aria-label="Filter the props" placeholder={`Filter ${props.length} props`} value={sought} autoComplete="off"
            spellCheck={false}
            onChange={({ target }) => {
              seek(target.value);
              target.closest("[role=tabpanel]")?.scrollTo({ top: 0 }); // or the first that fit would be above what is seen
            }}
          />
          <small role="status">{sought.trim() && (fits.size ? `${fits.size} of ${props.length}` : "None has these words.")}</small>
        </div>
      )}
      {props.map((prop) => (
        <Field
          key={prop.name} prop={prop} value={values[prop.name]} hidden={!fits.has(prop)} change={(value) => change(prop.name, value)}
        />
      ))}
      <button type="button" className="plain" onClick={reset}>Reset all</button>
    </form>
  );
}

/** The props that have every word that is sought in their name, type or description. */
function sifted(props: Prop[], sought: string): Set<Prop> {
  const words = sought.toLowerCase().split(/\s+/);
  return new Set(props.filter(({ name, type, doc }) => {
    const said = `${name} ${type} ${doc ?? ""}`.toLowerCase();
    return words.every((word) => said.includes(word));
  }));
}

interface FieldProps {
  prop: Prop;
  value: unknown;
  change: (value: unknown) => void;
}

// Hidden rather than left out: what is being typed into it, and is no value yet, stays.
function Field({ prop, value, change, hidden }: FieldProps & { hidden: boolean }): ReactNode {
  const id = useId();
  return (
    <div className="field" hidden={hidden}>
      <div className="name">
        <label htmlFor={id}>{prop.name}</label>
        {prop.required && <abbr title="required">*</abbr>}
        <span className="type">{prop.type}</span>
      </div>
      <Control id={id} prop={prop} value={value} change={change} />
      {prop.doc && <small>{prop.doc}</small>}
    </div>
  );
}

function Control({ id, prop, value, change }: FieldProps & { id: string }): ReactNode {
  switch (prop.type) {
    case "boolean":
      return <input id={id} type="checkbox" checked={value === true} onChange={(event) => change(event.target.checked)} />;
    case "number":
      return <NumberField id={id} value={value} change={change} />;
    case "enum":
      return (
        <select id={id} value={prop.options.indexOf(value)} onChange={(event) => change(prop.options[Number(event.target.value)])}>
          {!prop.options.includes(value) && <option value={-1}>(not set)</option>}
          {prop.options.map((option, index) => <option key={index} value={index}>{String(option)}</option>)}
        </select>
      );
    case "color":
      return <ColorField id={id} value={value} change={change} />;
    case "string":
    case "node":
      return <TextField id={id} prop={prop} value={value} change={change} />;
    case "function":
      return <output id={id} className="quiet">its calls are shown in the console</output>;
    default:
      return <JsonField id={id} prop={prop} value={value} change={change} />;
  }
}

function TextField({ id, prop, value, change }: FieldProps & { id: string }): ReactNode {
  const text = typeof value === "string" ? value : "";
  const told = (typed: string): void => change(typed === "" && !prop.required && prop.default === null ? undefined : typed);
  if (text.length > 60 || text.includes("\n")) {
    return <textarea id={id} rows={3} value={text} onChange={(event) => told(event.target.value)} />;
  }
  return <input id={id} type="text" value={text} autoComplete="off" onChange={(event) => told(event.target.value)} />;
}

function NumberField({ id, value, change }: { id: string; value: unknown; change: (value: unknown) => void }): ReactNode {
  // Kept as typed: "1." and "-" are on the way to a number.
  const [typed, type] = useState<{ text: string; means: unknown } | null>(null);
  const text = typed && Object.is(typed.means, value) ? typed.text : String(value ?? "");
  return (
    <input
      id={id} type="number" step="any" value={text}
      onChange={({ target }) => {
        const means = target.value === "" ? undefined : Number(target.value);
        type({ text: target.value, means });
        change(means);
      }}
    />
  );
}

function ColorField({ id, value, change }: { id: string; value: unknown; change: (value: unknown) => void }): ReactNode {
  const text = typeof value === "string" ? value : "";
  const known = /^#[0-9a-f]{6}$/i.test(text) ? text : "#000000";
  return (
    <span className="color">
      <input type="color" aria-label="pick a colour" value={known} onChange={(event) => change(event.target.value)} />
      <input id={id} type="text" value={text} onChange={(event) => change(event.target.value || undefined)} />
    </span>
  );
}

const written = (value: unknown): string => (value === undefined ? "" : JSON.stringify(value, null, 1));

function JsonField({ id, prop, value, change }: FieldProps & { id: string }): ReactNode {
  const [typed, type] = useState<{ text: string; means: string; wrong: string } | null>(null);
  const text = typed && (typed.wrong || typed.means === written(value)) ? typed.text : written(value);
  const told = (next: string): void => {
    let means: unknown;
    try {
      means = next.trim() === "" ? undefined : JSON.parse(next);
    } catch (error) {
      type({ text: next, means: "", wrong: (error as Error).message });
      return;
    }
    const wrong = prop.type === "array" && means !== undefined && !Array.isArray(means) ? "This must be a list: […]" : "";
    type({ text: next, means: written(means), wrong });
    if (!wrong) change(means);
  };
  const wrong = typed?.text === text ? typed.wrong : "";
  return (
    <>
      <textarea
        id={id} rows={Math.min(8, Math.max(2, text.split("\n").length))} className="json" spellCheck={false} value={text}
        aria-invalid={wrong !== ""} aria-describedby={wrong ? `${id}-wrong` : undefined} onChange={(event) => told(event.target.value)}
      />
      {wrong && <small id={`${id}-wrong`} className="wrong">{wrong}</small>}
    </>
  );
}
