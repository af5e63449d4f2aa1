/** Node's `assert`, as far as Babel uses it: it requires a function. */
module.exports = function assert(holds, message) {
  if (!holds) throw new Error(message ?? "an assertion of the compiler does not hold");
};
