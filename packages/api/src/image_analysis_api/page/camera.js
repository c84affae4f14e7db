// A photo from the camera: in a dialog where the page may open a camera, by the system's own program on phones.

import { byId, setText } from "./dom.js";

export async function offerCamera(onPhoto) {
  const button = byId("take-photo");
  const capture = byId("capture");
  capture.addEventListener("change", () => {
    if (capture.files.length) onPhoto(capture.files[0]);
    capture.value = "";
  });
  if (await hasCamera()) {
    const dialog = new Camera(onPhoto);
    button.addEventListener("click", () => dialog.open());
    button.hidden = false;
  } else if ("capture" in capture && matchMedia("(pointer: coarse)").matches) {
    button.addEventListener("click", () => capture.click());
    button.hidden = false;
  }
}

/** Ask the browser, which shows cameras to pages from HTTPS and from localhost only. */
async function hasCamera() {
  try {
    const devices = await navigator.mediaDevices.enumerateDevices();
    return devices.some((device) => device.kind === "videoinput");
  } catch {
    return false;
  }
}

class Camera {
  #dialog = byId("camera-dialog");
  #view = byId("camera-view");
  #stream = null;
  #opened = 0;

  constructor(onPhoto) {
    this.#dialog.addEventListener("close", () => this.#stop());
    byId("shutter").addEventListener("click", async () => {
      const photo = await this.#take();
      this.#dialog.close();
      onPhoto(photo);
    });
  }

  async open() {
    const turn = (this.#opened += 1);
    // While the browser asks, the dialog may be closed, and opened again.
    const isOver = () => turn !== this.#opened || !this.#dialog.open;
    setText(byId("camera-error"), "");
    byId("shutter").disabled = true;
    this.#dialog.showModal();
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
      if (isOver()) {
        stopTracks(stream);
        return;
      }
      this.#stream = stream;
      this.#view.srcObject = this.#stream;
      await this.#view.play();
      if (isOver()) return;
      byId("shutter").disabled = false;
      byId("shutter").focus();
    } catch (error) {
      if (isOver()) return;
      const isForbidden = error.name === "NotAllowedError";
      setText(byId("camera-error"), isForbidden ? "Allow this page to use the camera, then open it again." : "The camera cannot be opened.");
    }
  }

  async #take() {
    const { videoWidth: width, videoHeight: height } = this.#view;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    canvas.getContext("2d").drawImage(this.#view, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
    const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
    return new File([blob], `photo ${time}.jpg`, { type: "image/jpeg" });
  }

  #stop() {
    stopTracks(this.#stream);
    this.#stream = this.#view.srcObject = null;
  }
}

function stopTracks(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
