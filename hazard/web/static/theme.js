// Dark or light colours: the system's setting until the user chooses. Runs before the page is drawn, so it is not a module.
(() => {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const store = (value) => { try { value ? localStorage.setItem("theme", value) : localStorage.removeItem("theme"); } catch { /* storage is blocked */ } };
  const validTheme = (value) => value === "dark" || value === "light" ? value : "";
  let chosen = validTheme(stored());
  const isDark = () => chosen ? chosen === "dark" : system.matches;
  function show() {
    if (chosen) root.dataset.theme = chosen;
    else delete root.dataset.theme;
    const button = document.getElementById("theme");
    if (!button) return;
    button.hidden = false;
    button.querySelector(".sr").textContent = isDark() ? "Use light colours" : "Use dark colours";
    button.title = isDark() ? "Light colours" : "Dark colours";
  }
  show();
  system.addEventListener("change", show);
  addEventListener("storage", (changed) => { if (changed.key === "theme") { chosen = validTheme(changed.newValue); show(); } });
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme")?.addEventListener("click", () => {
      const next = isDark() ? "light" : "dark";
      chosen = next === (system.matches ? "dark" : "light") ? "" : next; // if it equals the system's setting, follow the system again
      store(chosen);
      show();
    });
    show();
  });
})();
