/** Node's `path`, as far as Babel uses it: names of files are relative, with slashes. */
export const sep = "/";
export const basename = (path: string, suffix = ""): string => {
  const name = path.slice(path.lastIndexOf("/") + 1);
  return suffix && name.endsWith(suffix) ? name.slice(0, -suffix.length) : name;
};
export const extname = (path: string): string => {
  const name = basename(path);
  const dot = name.lastIndexOf(".");
  return dot > 0 ? name.slice(dot) : "";
};
export const dirname = (path: string): string => path.slice(0, Math.max(path.lastIndexOf("/"), 0)) || ".";
export const isAbsolute = (path: string): boolean => path.startsWith("/");
export const join = (...parts: string[]): string => parts.filter(Boolean).join("/");
export const resolve = (...parts: string[]): string => join(...parts);
export const relative = (_from: string, to: string): string => to;
export default { sep, basename, extname, dirname, isAbsolute, join, resolve, relative };
