// Send a file straight to the bucket, in parts, with the addresses that the API signs.
"use strict";
class BucketUpload {
  constructor(file, options) {
    this.file = file;
    this.options = options;
    this.key = `hevcq ${file.name} ${file.size} ${file.lastModified}`;
    this.requests = new Set();
    this.sent = new Map();
    this.running = 0;
  }

  findPreviousUploads() {
    const id = localStorage.getItem(this.key);
    return Promise.resolve(id ? [id] : []);
  }

  resumeFromPreviousUpload(id) { this.id = id; }

  async start() {
    const turn = ++this.running;
    try {
      const upload = await this.begin();
      this.id = upload.video.id;
      this.url = `/uploads/${this.id}`;
      localStorage.setItem(this.key, this.id);
      await this.parts(upload.way, turn);
      if (turn !== this.running) return;
      await this.api("POST", `/${this.id}/complete`);
      localStorage.removeItem(this.key);
      this.options.onSuccess();
    } catch (error) {
      if (turn === this.running) this.options.onError(error);
    }
  }

  async abort(forGood) {
    this.running += 1;
    for (const request of this.requests) request.abort();
    if (!forGood || !this.id) return;
    localStorage.removeItem(this.key);
    await this.api("DELETE", `/${this.id}`);
  }

  async begin() {
    if (this.id) {
      try { return await this.api("GET", `/${this.id}`); } catch (error) { if (error.status !== 404) throw error; }
    }
    const { filename, filetype, title, description, profiles } = this.options.metadata;
    return this.api("POST", "", {
      name: filename, size: this.file.size, media_type: filetype, title, description, profiles: profiles.split(","),
    });
  }

  async parts(way, turn) {
    for (let number = 1; number <= way.parts && turn === this.running; number += 1) {
      const from = (number - 1) * way.part_size;
      const part = this.file.slice(from, Math.min(from + way.part_size, this.file.size));
      await this.part(number, part);
    }
  }

  async part(number, part) {
    for (let tries = 1; ; tries += 1) {
      try {
        const signed = await this.api("POST", `/${this.id}/parts`, { numbers: [number] });
        if (signed.came[number] !== part.size) await this.send(signed.urls[number], part, number);
        this.note(number, part.size);
        return;
      } catch (error) {
        if (error.aborted || tries === 6 || (error.status >= 400 && error.status < 500 && error.status !== 403)) throw error;
        this.options.onShouldRetry(error);
        await new Promise((go) => { setTimeout(go, 500 * 2 ** tries); });
      }
    }
  }

  note(number, bytes) {
    this.sent.set(number, bytes);
    const sum = [...this.sent.values()].reduce((all, one) => all + one, 0);
    this.options.onProgress(Math.min(sum, this.file.size), this.file.size);
    this.options.onChunkComplete();
  }

  send(url, body, number) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("PUT", url);
      request.upload.onprogress = (event) => this.note(number, event.loaded);
      request.onload = () => (request.status < 300 ? resolve() : reject(this.problem(request.status, request.responseText)));
      request.onerror = () => reject(this.problem(0, ""));
      request.onabort = () => reject(Object.assign(this.problem(0, ""), { aborted: true }));
      request.onloadend = () => this.requests.delete(request);
      this.requests.add(request);
      request.send(body);
    });
  }

  async api(method, path, body) {
    let answer;
    try {
      answer = await fetch(`/api/v1/uploads${path}`, {
        method, body: body && JSON.stringify(body), headers: body ? { "Content-Type": "application/json" } : {},
      });
    } catch (_) { throw this.problem(0, ""); }
    const text = await answer.text();
    if (!answer.ok) throw this.problem(answer.status, text);
    return text ? JSON.parse(text) : null;
  }

  // In the form of tus-js-client's errors, so that the page shows both alike.
  problem(status, text) {
    const originalResponse = status ? { getStatus: () => status, getBody: () => text } : null;
    return Object.assign(new Error(`answer ${status}`), { status, originalResponse });
  }
}
window.BucketUpload = BucketUpload;
