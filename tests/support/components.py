"""Components as models write them, and what is made of each."""

from __future__ import annotations

from corral.workspace.code.components import Component, analyse
from corral.workspace.code.languages import kind_of
from corral.workspace.exports.exported import Material

COUNTER = """\
import { useState } from "react"
import "./Counter.css"

interface CounterProps {
  /** What it counts. */
  label: string
  start?: number
  step?: number
  tone?: "light" | "dark"
  accent?: string
  disabled?: boolean
  onChange?: (value: number) => void
}

/**
 * Counts what is clicked.
 */
export default function Counter({
  label,
  start = 0,
  step = 0.5,
  tone = "dark",
  accent = "#ff0066",
  disabled = false,
  onChange,
}: CounterProps) {
  const [value, setValue] = useState<number>(start)
  function add(): void {
    const next = value + step
    setValue(next)
    onChange?.(next)
  }
  return (
    <button className={`counter ${tone}`} style={{ color: accent }} disabled={disabled} onClick={add}>
      {label}: {value}
    </button>
  )
}
"""
COUNTER_CSS = ".counter > span { color: red }\n.counter::after { content: '</style>' }\nbutton { padding: 7px }\n"

FORM = """\
import React, { FormEvent, ReactNode, useState } from 'react';

export type FormProps = {
  title?: string;
  fields?: string[];
  children?: ReactNode;
  onSubmit: (values: Record<string, string>) => void;
  style?: React.CSSProperties;
};

export const Form: React.FC<FormProps> = ({
  title = 'Sign up', fields = ['Name', 'Mail'], children, onSubmit, style,
}) => {
  const [values, setValues] = useState<Record<string, string>>({});
  const send = (event: FormEvent) => {
    event.preventDefault();
    onSubmit(values);
  };
  return (
    <form onSubmit={send} style={style}>
      <h2>{title}</h2>
      {fields.map((field) => (
        <label key={field}>
          {field}
          <input value={values[field] ?? ''} onChange={(e) => setValues({ ...values, [field]: e.target.value })} />
        </label>
      ))}
      {children}
      <button type="submit">Send</button>
    </form>
  );
};
"""

CHART = """\
import { memo, useMemo } from "react"

type Point = { x: number; y: number; label: string }

interface Props {
  data?: Point[]
  size?: { width: number; height: number }
  color?: string
  format?: (value: number) => string
}

const DATA: Point[] = [{ x: 0, y: 1, label: "a" }, { x: 1, y: 3.5, label: "b" }, { x: 2, y: 2, label: "c" }]

function Chart({
  data = [{ x: 0, y: 1, label: "a" }, { x: 1, y: 3.5, label: "b" }],
  size = { width: 320, height: 160 },
  color = "rgb(20, 120, 220)",
  format = String,
}: Props) {
  const top = useMemo(() => Math.max(...data.map(({ y }) => y), ...DATA.map(({ y }) => y)), [data])
  return (
    <svg width={size.width} height={size.height} role="img">
      {data.map(({ x, y, label }) => (
        <rect key={label} x={x * 40} y={0} width={30} height={(y / top) * size.height} fill={color}>
          <title>{format(y)}</title>
        </rect>
      ))}
    </svg>
  )
}

export default memo(Chart)
"""

PLAIN = """\
// As models write it who forget what they use.
function Badge({ text = "New", count = 3, rounded = true }) {
  const [seen, setSeen] = useState(false);
  if (seen) return null;
  return <span onClick={() => setSeen(true)} style={{ borderRadius: rounded ? 9 : 0 }}>{text} ({count})</span>;
}

export default Badge;
"""


def material(path: str, source: str, **files: str) -> tuple[Material, Component]:
    """The file with others beside it (`Counter_css` is Counter.css in its folder), and the component in it."""
    folder = path.rpartition("/")[0]
    beside = {f"{folder}/{name.replace('_', '.')}".lstrip("/"): text for name, text in files.items()}
    component = analyse(source, kind_of(path))
    assert component is not None
    return Material(path, kind_of(path), "", {path: source, **beside}), component


ALL = {
    "counter": lambda: material("src/Counter.tsx", COUNTER, Counter_css=COUNTER_CSS),
    "form": lambda: material("components/Form.tsx", FORM),
    "chart": lambda: material("Chart.tsx", CHART),
    "badge": lambda: material("Badge.jsx", PLAIN),
}
"""All of them by name, each made by a call."""
