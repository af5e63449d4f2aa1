import { useEffect, useId, useRef, useState, type KeyboardEvent, type ReactNode } from "react";

interface TabsProps {
  label: string;
  tabs: { name: string; body: ReactNode }[];
  /** Whether the last tab has something that must be seen. */
  alarm: boolean;
}

/** Tabs as screen readers and keyboards know them: arrows, Home and End go from one to the next. */
export function Tabs({ label, tabs, alarm }: TabsProps): ReactNode {
  const id = useId();
  const [at, go] = useState(0);
  const list = useRef<HTMLDivElement>(null);
  const touched = useRef(false);
  const last = tabs.length - 1;

  // What goes wrong at the beginning is shown; once somebody works here it is only counted.
  useEffect(() => {
    if (alarm && !touched.current) go(last);
  }, [alarm, last]);

  function pick(index: number): void {
    touched.current = true;
    go(index);
  }

  function press(event: KeyboardEvent): void {
    const to = { ArrowRight: (at + 1) % tabs.length, ArrowLeft: (at + last) % tabs.length, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    pick(to);
    list.current?.querySelectorAll<HTMLElement>("[role=tab]")[to]?.focus();
  }

  return (
    <div className="tabs" onFocus={() => { touched.current = true; }}>
      <div role="tablist" aria-label={label} ref={list} onKeyDown={press}>
        {tabs.map(({ name }, index) => (
          <button
            key={index} type="button" role="tab" id={`${id}-tab-${index}`} aria-controls={`${id}-panel-${index}`}
            aria-selected={index === at} tabIndex={index === at ? 0 : -1} onClick={() => pick(index)}
            className={index === last && alarm ? "alarm" : ""}
          >
            {name}
          </button>
        ))}
      </div>
      {tabs.map(({ body }, index) => (
        <div
          key={index} role="tabpanel" id={`${id}-panel-${index}`} aria-labelledby={`${id}-tab-${index}`} hidden={index !== at}
        >
          {body}
        </div>
      ))}
    </div>
  );
}
