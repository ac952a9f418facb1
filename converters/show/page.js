"use strict";
for (const config of document.querySelectorAll("[data-config]")) {
  const form = config.querySelector("form"), pics = [...config.querySelectorAll(".pic")];
  const sheets = [...config.querySelectorAll(".sheet")];
  const apply = () => {
    const split = form.elements.split.value;
    const labels = ["one", "other"].map((name) => form.elements[name]?.value ?? "").filter(Boolean);
    let shown = 0;
    for (const pic of pics) {
      const has = pic.dataset.labels.split(" ");
      pic.hidden = (split && pic.dataset.split !== split) || !labels.every((label) => has.includes(label));
      shown += !pic.hidden;
    }
    for (const sheet of sheets) sheet.hidden = !sheet.querySelector(".pic:not([hidden])");
    form.querySelector("output").textContent = `${shown} of ${pics.length} pictures`;
  };
  form.hidden = false;
  form.addEventListener("change", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}

const dialog = document.querySelector("dialog"), stage = dialog.querySelector(".stage");
let current = null;
const enlarge = (pic) => {
  current = pic;
  stage.replaceChildren(pic.querySelector(".frame").cloneNode(true));
  const caption = pic.querySelector("figcaption").cloneNode(true);
  caption.querySelector(".more").className = "";
  dialog.querySelector(".caption").replaceChildren(...caption.childNodes);
  if (!dialog.open) dialog.showModal();
};
const step = (by) => {
  const all = [...document.querySelectorAll(".pic:not([hidden])")].filter((pic) => pic.querySelector(".open"));
  enlarge(all[(all.indexOf(current) + by + all.length) % all.length]);
};
document.addEventListener("click", (event) => {
  const open = event.target.closest(".open");
  if (open) enlarge(open.closest(".pic"));
  else if (event.target.dataset?.step) step(+event.target.dataset.step);
  else if (event.target === dialog || event.target.matches("[data-close]")) dialog.close();
});
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
dialog.addEventListener("close", () => current?.querySelector(".open").focus());

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    if (!button.textContent) button.textContent = "name";
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") && !column);
      for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[column].textContent;
      const number = (row) => parseFloat(value(row).replaceAll(",", ""));
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (number(a) - number(b) || value(a).localeCompare(value(b))) * (up ? 1 : -1));
      table.tBodies[0].append(...rows);
    });
  });
}
