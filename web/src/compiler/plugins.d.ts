/** Plugins of Babel's that come without types. */
declare module "@babel/plugin-transform-modules-commonjs" {
  const plugin: import("@babel/core").PluginTarget;
  export default plugin;
}
declare module "@babel/plugin-transform-react-jsx" {
  const plugin: import("@babel/core").PluginTarget;
  export default plugin;
}
declare module "@babel/plugin-transform-typescript" {
  const plugin: import("@babel/core").PluginTarget;
  export default plugin;
}
