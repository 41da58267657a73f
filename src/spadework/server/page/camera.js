// The browser's camera: start, choose one, capture. Browsers give it only to pages of this machine or over https.

import { h, replace } from "./dom.js";
import { icon } from "./icons.js";
import { keyName } from "./keys.js";

const WHY = {
  NotAllowedError: "The browser was told not to give the camera to this page. Allow it beside the address, then try again.",
  NotFoundError: "No camera was found.",
  NotReadableError: "Another program uses the camera.",
};

export class Camera {
  constructor(signal, onPicture) {
    this.onPicture = onPicture;
    this.video = h("video", { playsinline: true, muted: true, "aria-label": "Camera" });
    this.video.muted = true;
    this.choice = h("select", { "aria-label": "Which camera", onchange: () => this.start(this.choice.value) });
    this.switch = h("button", { type: "button", onclick: () => (this.stream ? this.stop() : this.start()) });
    this.shutter = h("button", { type: "button", class: "primary", onclick: () => this.capture() }, icon("camera"), "Capture and inspect", h("kbd", {}, keyName("capture")));
    this.told = h("p", { class: "quiet", role: "status" });
    this.root = h("section", { class: "camera card", "aria-label": "Camera" });
    signal.addEventListener("abort", () => this.stop());
    this.draw();
  }

  draw() {
    const runs = Boolean(this.stream);
    replace(this.switch, icon("camera"), runs ? "Stop the camera" : "Use a camera");
    const possible = Boolean(navigator.mediaDevices?.getUserMedia);
    if (!possible) this.told.textContent = "A camera can only be used on the station itself or over https.";
    replace(this.root, runs && this.video, h("div", { class: "buttons" }, runs && this.shutter, possible && this.switch, runs && this.choice.length > 1 && this.choice),
      !runs && possible && h("p", { class: "quiet" }, "Each capture is inspected and kept like any other picture."), this.told.textContent && this.told);
  }

  async start(device) {
    this.stop();
    this.told.textContent = "";
    try {
      const wanted = { width: { ideal: 4096 }, height: { ideal: 2160 }, ...(device ? { deviceId: { exact: device } } : { facingMode: "environment" }) };
      this.stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
      this.video.srcObject = this.stream;
      await this.video.play();
      const all = (await navigator.mediaDevices.enumerateDevices()).filter((one) => one.kind === "videoinput");
      const now = this.stream.getVideoTracks()[0].getSettings().deviceId;
      replace(this.choice, all.map((one, index) => h("option", { value: one.deviceId, selected: one.deviceId === now }, one.label || `Camera ${index + 1}`)));
    } catch (error) {
      this.stop();
      this.told.textContent = WHY[error.name] ?? `The camera cannot be used: ${error.message}`;
    }
    this.draw();
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
    this.draw();
  }

  async capture() {
    if (!this.stream || !this.video.videoWidth) return;
    const canvas = h("canvas", { width: this.video.videoWidth, height: this.video.videoHeight });
    canvas.getContext("2d").drawImage(this.video, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png")); // without loss: compression is no defect
    const now = new Date();
    const stamp = new Date(now - now.getTimezoneOffset() * 60_000).toISOString().slice(0, 19).replace("T", " ").replaceAll(":", "-");
    this.onPicture(blob, `camera ${stamp}.png`);
  }
}
