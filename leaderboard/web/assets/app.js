// All script of our own: theme, charts, the state of a waiting submission, upload progress. Pages work without it,
// but for the charts.
"use strict";

const root = document.documentElement.dataset.root || ""; // the path below which a proxy shows the service
const words = { fr: {
  "being scored": "en cours d'évaluation", "next in line": "la prochaine", "before it": "avant elle", about: "environ",
  past: "passé", in: "dans", d: "j", storing: "enregistrement",
  "The upload failed; status": "Le téléversement a échoué ; état",
  "This file is larger than the contest allows.": "Ce fichier est plus grand que le concours ne le permet.",
  "The connection was lost; try again.": "La connexion est perdue ; essayez encore.",
  "The chart could not be drawn; the table has the same figures.": "Le graphique n'a pas pu être tracé ; le tableau a les mêmes chiffres.",
} }[document.documentElement.lang] || {};
const say = (text) => words[text] || text;

const dark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

function themeButton() {
  const button = document.querySelector("button.theme");
  if (!button) return;
  button.hidden = false;
  button.addEventListener("click", () => {
    const theme = dark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try { localStorage.setItem("theme", theme); } catch { /* then it lasts as long as the page */ }
    document.dispatchEvent(new Event("themechange"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("themechange")));
}

async function draw(place) {
  const order = place.order = (place.order || 0) + 1;
  const query = new URLSearchParams({ width: Math.min(2400, Math.max(240, Math.floor(place.clientWidth))), theme: dark() ? "dark" : "light" });
  try {
    const answer = await fetch(`${place.dataset.chart}?${query}`);
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const specification = await answer.json();
    if (order !== place.order) return; // a newer drawing is under way
    const target = document.createElement("div");
    const { view, finalize } = await vegaEmbed(target, specification, {
      actions: false, ast: true, defaultStyle: false, renderer: "canvas", tooltip: { disableDefaultStyle: true },
    });
    if (order !== place.order) return finalize();
    if (place.finalize) place.finalize();
    place.finalize = finalize;
    place.view = view;
    view.addEventListener("click", (_, item) => {
      const url = item?.datum?.url;
      if (typeof url === "string" && /^\/submissions\/\d+$/.test(url)) location.assign(root + url);
    });
    place.replaceChildren(target);
    place.dataset.drawn = dark() ? "dark" : "light";
  } catch (error) {
    if (order !== place.order) return;
    const message = document.createElement("p");
    message.className = "chart-failed";
    message.textContent = say("The chart could not be drawn; the table has the same figures.");
    place.replaceChildren(message);
    console.warn("chart:", error);
  }
}

function charts() {
  for (const place of document.querySelectorAll("[data-chart]")) {
    if (typeof vegaEmbed === "undefined") continue;
    let width = 0;
    let timer;
    new ResizeObserver(() => {
      if (Math.abs(place.clientWidth - width) < 20) return;
      clearTimeout(timer);
      timer = setTimeout(() => { width = place.clientWidth; draw(place); }, width ? 200 : 0);
    }).observe(place);
    document.addEventListener("themechange", () => draw(place));
  }
}

function watchState() {
  const status = document.querySelector("[data-state-url]");
  if (!status) return;
  let wait = 700;
  const look = async () => {
    try {
      const answer = await fetch(status.dataset.stateUrl);
      if (answer.ok) {
        const now = await answer.json();
        if (now.terminal) return location.reload();
        if (now.state !== status.dataset.state) {
          status.dataset.state = now.state;
          const badge = status.querySelector(".badge");
          badge.className = `badge ${now.state}`;
          badge.textContent = now.label;
          wait = 700;
        }
        const reason = now.state === "running" ? say("being scored") : (now.ahead ? `${now.ahead} ${say("before it")}` : say("next in line")) + (now.about ? `, ${say("about")} ${now.about}` : "");
        status.querySelector(".reason").textContent = reason;
      }
    } catch { /* the service is away for a moment: ask again */ }
    wait = Math.min(wait * 1.3, 5000);
    setTimeout(look, document.hidden ? 5000 : wait);
  };
  setTimeout(look, wait);
}

function upload() {
  const form = document.querySelector("form.upload[enctype]");
  if (!form) return;
  const bar = form.querySelector("progress");
  const text = form.querySelector(".progress-text");
  const button = form.querySelector("button");
  const stop = (message) => {
    bar.hidden = true;
    button.disabled = false;
    text.textContent = message;
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const file = form.elements.file.files[0];
    if (file && file.size > Number(form.dataset.maxBytes)) return stop(say("This file is larger than the contest allows."));
    const request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.setRequestHeader("Accept", "application/json");
    request.responseType = "json";
    request.upload.addEventListener("progress", (e) => {
      if (!e.lengthComputable) return;
      bar.value = e.loaded / e.total;
      text.textContent = e.loaded < e.total ? `${Math.round(100 * e.loaded / e.total)} %` : say("storing");
    });
    request.addEventListener("load", () => {
      const answer = request.response || {};
      if (request.status === 200 && /^\/submissions\/\d+$/.test(answer.location)) location.assign(root + answer.location);
      else stop(answer.detail || `${say("The upload failed; status")} ${request.status}`);
    });
    request.addEventListener("error", () => stop(say("The connection was lost; try again.")));
    bar.hidden = false;
    button.disabled = true;
    request.send(new FormData(form));
  });
}

function compareTwo() {
  const form = document.querySelector('form[action$="/compare"]');
  const boxes = [...document.querySelectorAll('input[type="checkbox"][name="id"]')];
  if (!form || !boxes.length) return;
  const button = form.querySelector("button");
  const update = () => {
    const chosen = boxes.filter((box) => box.checked).length;
    if (button) button.disabled = chosen !== 2;
    for (const box of boxes) box.disabled = chosen >= 2 && !box.checked;
  };
  for (const box of boxes) box.addEventListener("change", update);
  update();
}

// Moments in the visitor's own time zone, and how long it is until then.
function clocks() {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"]];
  const tell = () => {
    for (const place of document.querySelectorAll("time[data-clock]")) {
      const moment = new Date(place.dateTime);
      let left = Math.floor((moment - Date.now()) / 1000);
      const local = moment.toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
      place.title = place.title || place.textContent;
      let told = left < 0 ? say("past") : left < 60 ? `${say("in")} ${left} s` : say("in");
      let shown = 0;
      for (const [size, unit] of parts) {
        if (left >= size && shown < 2) {
          told += ` ${Math.floor(left / size)} ${say(unit)}`;
          left %= size;
          shown += 1;
        }
      }
      place.textContent = `${local} (${told})`;
    }
  };
  if (!document.querySelector("time[data-clock]")) return;
  tell();
  setInterval(tell, 1000);
}

themeButton();
clocks();
charts();
watchState();
upload();
compareTwo();
