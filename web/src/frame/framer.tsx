/** What a component for Framer imports, as far as it can do without Framer: its controls are the page's form. */
import type { ReactNode } from "react";

const word = (_: object, name: string | symbol): string => String(name).toLowerCase();

export const ControlType: Record<string, string> = new Proxy({}, { get: word });
export const RenderTarget = { current: (): string => "PREVIEW", canvas: "CANVAS", export: "EXPORT", thumbnail: "THUMBNAIL", preview: "PREVIEW" };
export const addPropertyControls = (): void => {};
export const addFonts = (): void => {};
export const useIsStaticRenderer = (): boolean => false;
export const useIsOnFramerCanvas = (): boolean => false;
export const withCSS = <T,>(component: T): T => component;
export const cx = (...names: unknown[]): string => names.filter((name) => typeof name === "string").join(" ");
export const Frame = ({ children }: { children?: ReactNode }): ReactNode => <div>{children}</div>;
