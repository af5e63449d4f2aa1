import type { NodePath, PluginObj, types } from "@babel/core";

/** A plugin of Babel's that lets what a script declares at its top be seen by the scripts after it, as in a page. */
export function shareTop({ types: t }: typeof import("@babel/core")): PluginObj {
  const declared = (path: NodePath<types.VariableDeclaration>): void => {
    if (path.parentPath.isProgram()) path.node.kind = "var";
  };
  const named = (path: NodePath<types.ClassDeclaration>): void => {
    const { id, superClass, body } = path.node;
    if (!path.parentPath.isProgram() || !id) return;
    const made = t.variableDeclarator(t.identifier(id.name), t.classExpression(id, superClass ?? null, body));
    path.replaceWith(t.variableDeclaration("var", [made]));
  };
  return { name: "corral-share-top", visitor: { VariableDeclaration: declared, ClassDeclaration: named } };
}
