// Before anything is drawn: the theme chosen last time. Without a choice the system's preference holds (style.css).
(() => {
  try {
    const chosen = localStorage.getItem("rejoinder-theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch {
    // A browser that keeps nothing for us follows the system.
  }
})();
