// Send a file in pieces, show how fast, pause, and resume after a reload or a restart of the server.
"use strict";
const form = document.getElementById("upload");
const panel = document.getElementById("sending");
const bar = document.getElementById("sent");
const numbers = document.getElementById("numbers");
const said = document.getElementById("said");
const pause = document.getElementById("pause");
const drop = document.getElementById("drop");
const start = document.getElementById("start");
const SPEED_OVER_MS = 5000;
const SAY_EVERY_MS = 5000;
let upload = null;
let marks = [];
let lastSaid = 0;

const size = (bytes) => {
  for (const [unit, of] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (bytes >= of) return `${(bytes / of).toFixed(1)} ${unit}`;
  }
  return `${bytes} Bytes`;
};
const time = (s) => (s < 90 ? `${Math.ceil(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`);

function state(name, words) {
  panel.dataset.state = name;
  pause.textContent = name === "paused" || name === "failed" ? "Resume" : "Pause";
  pause.hidden = name === "done" || !upload;
  drop.hidden = name === "done";
  if (words) { said.textContent = words; lastSaid = performance.now(); }
}

function progress(sent, total) {
  const now = performance.now();
  marks.push([now, sent]);
  while (marks.length > 2 && now - marks[0][0] > SPEED_OVER_MS) marks.shift();
  const [then, before] = marks[0];
  const speed = now > then ? ((sent - before) / (now - then)) * 1000 : 0;
  const percent = total ? (sent / total) * 100 : 0;
  bar.value = percent;
  const left = speed > 0 ? `, ${size(speed)}/s, ${time((total - sent) / speed)} left` : "";
  numbers.textContent = `${size(sent)} of ${size(total)}${left}`;
  if (now - lastSaid > SAY_EVERY_MS) { said.textContent = `${Math.floor(percent)} % sent`; lastSaid = now; }
}

function done(address) {
  state("done", "Uploaded. The encodes begin.");
  location.assign(address);
}

const checked = () => [...form.querySelectorAll("[name=profile]:checked")].map((box) => box.value);
const words = (error) => {
  const answer = error.originalResponse;
  const text = answer ? answer.getBody() : "";
  try { const body = JSON.parse(text); return [body.detail || body.title, body.remedy].filter(Boolean).join(" "); } catch (_) { /* no JSON */ }
  return answer && text && text.length < 300 ? text : "The server does not answer. Your upload is kept; press Resume.";
};

function begin(file) {
  const Upload = window.BucketUpload || tus.Upload;
  upload = new Upload(file, {
    endpoint: "/uploads",
    chunkSize: Number(form.dataset.chunk),
    retryDelays: [0, 500, 1000, 2000, 4000, 8000, 15000, 30000],
    removeFingerprintOnSuccess: true,
    metadata: {
      filename: file.name,
      filetype: file.type,
      title: form.elements.title.value,
      description: form.elements.description.value,
      profiles: checked().join(","),
    },
    onProgress: progress,
    onShouldRetry: (error) => {
      const status = error.originalResponse ? error.originalResponse.getStatus() : 0;
      state("waiting", "The connection was lost; trying again.");
      return status === 0 || status === 409 || status === 423 || status >= 500;
    },
    onChunkComplete: () => { if (panel.dataset.state === "waiting") state("sending", "Going on."); },
    onError: (error) => state("failed", words(error)),
    onSuccess: () => done(`/v/${upload.url.split("/").pop()}`),
  });
  upload.findPreviousUploads().then((found) => {
    if (found.length) { upload.resumeFromPreviousUpload(found[0]); said.textContent = "Resuming where it was."; }
    send();
  });
}

function send() {
  marks = [];
  state("sending");
  upload.start();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const file = form.elements.file.files[0];
  panel.hidden = false;
  if (!file.size) { state("failed", "The file is empty."); return; }
  if (file.size > Number(form.dataset.most)) { state("failed", `The file has ${size(file.size)}; ${size(Number(form.dataset.most))} are allowed.`); return; }
  if (!checked().length) { state("failed", "Choose at least one format."); return; }
  start.disabled = true;
  panel.scrollIntoView({ block: "nearest" });
  begin(file);
});
pause.addEventListener("click", () => {
  if (!upload) return;
  if (panel.dataset.state === "paused" || panel.dataset.state === "failed") { send(); } else { upload.abort(); state("paused", "Paused."); }
});
drop.addEventListener("click", () => {
  if (upload) upload.abort(true).catch(() => {}).finally(() => location.reload());
  else location.reload();
});
