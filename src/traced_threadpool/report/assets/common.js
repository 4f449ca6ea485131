"use strict";
// What the page of a run and the page of many runs share; either comes after it in the same script.

const $ = (id) => document.getElementById(id);

// All text goes into the page by textContent, never as markup.
function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** Microseconds as three digits in the unit that fits. */
function time(us) {
  if (us < 0) return "-" + time(-us);
  if (us >= 119.5e6) {
    const whole = Math.round(us / 1e6);
    const minutes = Math.round(whole / 60);
    if (whole >= 3600) return `${Math.floor(minutes / 60).toLocaleString("en")} h ${minutes % 60} min`;
    return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  }
  if (us === 0) return "0 s";
  const [size, unit] = us >= 999500 ? [1e6, "s"] : us >= 999.5 ? [1e3, "ms"] : [1, "µs"];
  const number = us / size;
  return `${number.toFixed(number >= 99.95 ? 0 : number >= 9.995 ? 1 : 2)} ${unit}`;
}

/** Bytes, in three digits and the unit that fits. */
function bytes(number) {
  if (number < 1000) return `${number} B`;
  const [size, unit] = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]].find(([least]) => number >= least);
  const scaled = number / size;
  return `${scaled.toFixed(scaled >= 99.95 ? 0 : scaled >= 9.995 ? 1 : 2)} ${unit}`;
}

const probe = element("span", "", { class: "off" });
document.body.append(probe);

/** A colour of the style sheet in the theme that is shown. */
function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** Calls draw now, and whenever the theme changes. */
function followTheme(draw) {
  const choose = (theme) => {
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = theme;
    for (const button of document.querySelectorAll(".switch button")) button.setAttribute("aria-pressed", String(button.value === theme));
    draw();
  };
  for (const button of document.querySelectorAll(".switch button")) button.addEventListener("click", () => choose(button.value));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  choose("auto");
}

