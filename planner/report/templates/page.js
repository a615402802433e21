"use strict";
const plots = [...document.querySelectorAll("[data-figure]")];
// A sheet of A4 between usual margins.
const PRINTED = 680;
for (const plot of plots) {
  const figure = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
  Plotly.newPlot(plot, figure.data, figure.layout, { displayModeBar: false, doubleClick: false, responsive: true });
}
// Where plotly measures text; nothing to be read.
document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true");
const resize = (printing) => {
  for (const plot of plots) {
    Plotly.relayout(plot, printing ? { autosize: false, width: PRINTED } : { autosize: true, width: null });
  }
};
window.addEventListener("beforeprint", () => resize(true));
window.addEventListener("afterprint", () => resize(false));
