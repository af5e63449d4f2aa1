import type { NodePath, PluginObj, types } from "@babel/core";


import { GUARD } from "../shared/words";

/** A plugin of Babel's that lets every loop ask, in each round, whether it may go on. */
export function guardLoops({ types: t, template }: typeof import("@babel/core")): PluginObj {
  const ask = template.statement(`${GUARD}();`, { placeholderPattern: false });
  const guarded = (path: NodePath<types.Loop>): void => {
    const body = path.node.body;
    const block = t.isBlockStatement(body) ? body : t.blockStatement(t.isEmptyStatement(body) ? [] : [body]);
    block.body.unshift(ask());
    path.node.body = block;
  };
  return { name: "corral-guard-loops", visitor: { Loop: { exit: guarded } } };
}
