import { useEffect, useState } from "react";
import type { Theme } from "../shared/protocol";

const KEY = "corral.theme";

/** Light or dark: as was chosen here, else as the system is. */
export function useTheme(): [Theme, (theme: Theme) => void] {
  const [chosen, choose] = useState<string | null>(() => localStorage.getItem(KEY));
  const [system, setSystem] = useState(() => matchMedia("(prefers-color-scheme: dark)").matches);
  useEffect(() => {
    const query = matchMedia("(prefers-color-scheme: dark)");
    const told = (): void => setSystem(query.matches);
    query.addEventListener("change", told);
    return () => query.removeEventListener("change", told);
  }, []);
  const theme: Theme = chosen === "dark" || chosen === "light" ? chosen : system ? "dark" : "light";
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  return [theme, (next) => { localStorage.setItem(KEY, next); choose(next); }];
}
