/** Node's `assert`, as far as Babel uses it. */
export default function assert(holds: unknown, message?: string): asserts holds {
  if (!holds) throw new Error(message ?? "an assertion of the compiler does not hold");
}
