// Send files in pieces, two at a time; show the speed, pause, and resume after a reload or a server restart.
"use strict";
const form = document.getElementById("upload");
const panel = document.getElementById("sending");
const list = document.getElementById("files");
const said = document.getElementById("said");
const title = document.getElementById("title");
const SPEED_OVER_MS = 5000;
const SAY_EVERY_MS = 5000;
const AT_ONCE = 2;
let rows = [];

const size = (bytes) => {
  for (const [unit, of] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (bytes >= of) return `${(bytes / of).toFixed(1)} ${unit}`;
  }
  return `${bytes} Bytes`;
};
const time = (s) => (s < 90 ? `${Math.ceil(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`);
const checked = () => [...form.querySelectorAll("[name=profile]:checked")].map((box) => box.value);
const problem = (error) => {
  const answer = error.originalResponse;
  const text = answer ? answer.getBody() : "";
  try { const body = JSON.parse(text); return [body.detail || body.title, body.remedy].filter(Boolean).join(" "); } catch (_) { /* no JSON */ }
  return answer && text && text.length < 300 ? text : "The server does not answer. Your upload is kept; press Resume.";
};

// Start queued files until two are being sent, and say how many are done.
function next() {
  const under = rows.filter((row) => row.is("sending", "waiting")).length;
  rows.filter((row) => row.is("queued")).slice(0, Math.max(0, AT_ONCE - under)).forEach((row) => row.send());
  const done = rows.filter((row) => row.is("done")).length;
  const failed = rows.filter((row) => row.is("failed")).length;
  if (rows.length > 1) said.textContent = `${done} of ${rows.length} uploaded${failed ? `, ${failed} failed` : ""}.`;
}

class Row {
  constructor(file, metadata) {
    this.file = file;
    this.node = document.getElementById("one").content.firstElementChild.cloneNode(true);
    [this.pause, this.drop] = this.node.querySelectorAll("button");
    this.bar = this.node.querySelector("progress");
    this.words = this.node.querySelector(".words");
    this.node.querySelector(".name").textContent = file.name;
    this.bar.setAttribute("aria-label", file.name);
    this.marks = [];
    this.lastSaid = 0;
    this.pause.addEventListener("click", () => this.press());
    this.drop.addEventListener("click", () => this.cancel());
    list.append(this.node);
    const most = Number(form.dataset.most);
    const wrong = !file.size ? "The file is empty." : file.size > most ? `The file has ${size(file.size)}, more than the allowed ${size(most)}.` : "";
    if (!wrong) this.upload = this.prepared(metadata);
    this.state(wrong ? "failed" : "queued", wrong || "Waiting for its turn.");
  }

  is(...names) { return names.includes(this.node.dataset.state); }

  state(name, words) {
    this.node.dataset.state = name;
    this.pause.textContent = name === "paused" || name === "failed" ? "Resume" : "Pause";
    this.pause.hidden = name === "done" || name === "queued" || !this.upload;
    this.drop.hidden = name === "done";
    for (const button of [this.pause, this.drop]) button.setAttribute("aria-label", `${button.textContent}: ${this.file.name}`);
    if (words) { this.words.textContent = words; this.lastSaid = performance.now(); }
  }

  prepared(metadata) {
    return new (window.BucketUpload || tus.Upload)(this.file, {
      endpoint: "/uploads",
      chunkSize: Number(form.dataset.chunk),
      retryDelays: [0, 500, 1000, 2000, 4000, 8000, 15000, 30000],
      removeFingerprintOnSuccess: true,
      metadata,
      onProgress: (sent, total) => this.progress(sent, total),
      onShouldRetry: (error) => {
        const status = error.originalResponse ? error.originalResponse.getStatus() : 0;
        this.state("waiting", "Connection lost; trying again.");
        return status === 0 || status === 409 || status === 423 || status >= 500;
      },
      onChunkComplete: () => { if (this.is("waiting")) this.state("sending", "Sending again."); },
      onError: (error) => { this.state("failed", problem(error)); next(); },
      onSuccess: () => this.done(`/v/${this.upload.url.split("/").pop()}`),
    });
  }

  async send() {
    this.marks = [];
    this.state("sending", "Sending.");
    if (!this.looked) {
      this.looked = true;
      const found = await this.upload.findPreviousUploads();
      if (found.length) { this.upload.resumeFromPreviousUpload(found[0]); this.words.textContent = "Resuming."; }
      if (!this.is("sending") || !rows.includes(this)) return;
    }
    this.upload.start();
  }

  progress(sent, total) {
    const now = performance.now();
    this.marks.push([now, sent]);
    while (this.marks.length > 2 && now - this.marks[0][0] > SPEED_OVER_MS) this.marks.shift();
    const [then, before] = this.marks[0];
    const speed = now > then ? ((sent - before) / (now - then)) * 1000 : 0;
    const percent = total ? (sent / total) * 100 : 0;
    this.bar.value = percent;
    const left = speed > 0 ? `, ${size(speed)}/s, ${time((total - sent) / speed)} left` : "";
    this.node.querySelector(".facts").textContent = `${size(sent)} of ${size(total)}${left}`;
    if (now - this.lastSaid > SAY_EVERY_MS) { this.words.textContent = `${Math.floor(percent)} % sent`; this.lastSaid = now; }
  }

  done(address) {
    this.state("done", "Uploaded. Encoding starts.");
    if (rows.length === 1) { location.assign(address); return; }
    const link = document.createElement("a");
    link.href = address;
    link.textContent = this.file.name;
    this.node.querySelector(".name").replaceChildren(link);
    next();
  }

  press() {
    if (this.is("paused", "failed")) { this.state("queued", "Waiting for its turn."); } else { this.upload.abort(); this.state("paused", "Paused."); }
    next();
  }

  cancel() {
    const at = rows.indexOf(this), held = this.node.contains(document.activeElement);
    rows = rows.filter((row) => row !== this);
    this.node.remove();
    const near = rows[Math.min(at, rows.length - 1)];
    if (held && near) (near.pause.hidden ? near.drop : near.pause).focus();  // or the focus is lost
    const gone = this.upload ? this.upload.abort(true).catch(() => {}) : Promise.resolve();
    gone.finally(() => { if (rows.length) next(); else location.reload(); });
  }
}

const several = () => { title.hidden = form.elements.file.files.length > 1; };

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const files = [...form.elements.file.files];
  panel.hidden = false;
  if (!checked().length) { said.textContent = "Choose at least one format."; return; }
  said.textContent = "";
  for (const file of files) {
    rows.push(new Row(file, {
      filename: file.name,
      filetype: file.type,
      title: files.length > 1 ? "" : form.elements.title.value,
      description: form.elements.description.value,
      profiles: checked().join(","),
    }));
  }
  form.elements.file.value = "";
  form.elements.title.value = "";
  several();
  panel.scrollIntoView({ block: "nearest" });
  next();
});
form.elements.file.addEventListener("change", several);
for (const name of ["dragenter", "dragover"]) {
  form.addEventListener(name, (event) => { event.preventDefault(); form.classList.add("over"); });
}
form.addEventListener("dragleave", () => form.classList.remove("over"));
form.addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("over");
  if (event.dataTransfer.files.length) { form.elements.file.files = event.dataTransfer.files; several(); }
});
