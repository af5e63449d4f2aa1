import type { Theme } from "../shared/protocol";

/** Light or dark, as the page is; what has colours of its own is not touched. */
export function dress(theme: Theme): void {
  document.documentElement.style.colorScheme = theme;
}
