// Before the first paint: the theme that the reader chose, if any. Without a choice the system's holds.
"use strict";
try {
  const chosen = localStorage.getItem("theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch { /* storage is blocked: the system's theme it is */ }
