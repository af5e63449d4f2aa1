/** The values of props: what a component is shown with before anybody has chosen, and what is sent to it. */
import type { GivenProps, Props } from "../shared/protocol";
import type { Prop } from "./api";

/** Something to see where a component needs a prop and nothing says what; undefined where it does not. */
export function sample(prop: Prop): unknown {
  if (prop.default !== null && prop.default !== undefined) return prop.default;
  if (prop.type === "enum") return prop.required ? prop.options[0] : undefined;
  if (!prop.required) return undefined;
  const words = prop.name.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
  switch (prop.type) {
    case "string":
    case "node":
      return words.charAt(0).toUpperCase() + words.slice(1);
    case "number":
      return 1;
    case "boolean":
      return false;
    case "color":
      return "#3b6fd4";
    case "array":
      return [];
    case "object":
      return {};
    default:
      return undefined;
  }
}

export const samples = (props: Prop[]): Props =>
  Object.fromEntries(props.filter(({ type }) => type !== "function").map((prop) => [prop.name, sample(prop)]));

/** As a frame takes them: without those that are not set, and with the names of those that are functions. */
export function given(props: Prop[], values: Props): GivenProps {
  const set = Object.entries(values).filter(([, value]) => value !== undefined);
  const functions = props.filter(({ type }) => type === "function").map(({ name }) => name);
  return { values: Object.fromEntries(set), functions };
}
