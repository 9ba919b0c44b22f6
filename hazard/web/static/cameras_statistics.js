// Reloads the statistics in the browser's time zone.
const foot = document.querySelector("[data-zone]"), query = new URLSearchParams(location.search);
let zone = "";
try { zone = Intl.DateTimeFormat().resolvedOptions().timeZone || ""; } catch { /* the server's zone stays */ }
if (zone && zone !== foot.dataset.zone && !query.has("zone")) {
  query.set("zone", zone);
  location.replace(`${location.pathname}?${query}`);
}
document.querySelector(".filters").addEventListener("change", (event) => { if (event.target.matches("select")) event.target.form.requestSubmit(); });
