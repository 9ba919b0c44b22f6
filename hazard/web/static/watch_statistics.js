// Numbers by the hours and days of where the browser is.
const foot = document.querySelector("[data-zone]"), query = new URLSearchParams(location.search);
let zone = "";
try { zone = Intl.DateTimeFormat().resolvedOptions().timeZone || ""; } catch { /* the server's stays */ }
if (zone && zone !== foot.dataset.zone && !query.has("zone")) {
  query.set("zone", zone);
  location.replace(`${location.pathname}?${query}`);
}
document.querySelector(".filters").addEventListener("change", (event) => { if (event.target.matches("select")) event.target.form.requestSubmit(); });
