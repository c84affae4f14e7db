// Classifies an image with Hugging Face's client and prints what the caller of the client sees.
// The only argument is JSON: {path, form: "typed blob" | "blob" | "bytes" | "json", endpointUrl, accessToken, options}.
import { readFile } from "node:fs/promises";
import { InferenceClient } from "@huggingface/inference";

const { path, form, endpointUrl, accessToken, parameters, options } = JSON.parse(process.argv[2]);
const bytes = await readFile(path);
const client = new InferenceClient(accessToken, { endpointUrl, ...options });

function classify() {
  switch (form) {
    case "typed blob":
      return client.imageClassification({ inputs: new Blob([bytes], { type: "image/png" }) });
    case "blob":
      return client.imageClassification({ inputs: new Blob([bytes]) });
    case "bytes":
      return client.imageClassification({ data: Uint8Array.from(bytes).buffer });
    case "json":
      return client.request({ inputs: bytes.toString("base64"), parameters });
  }
}

let seen;
try {
  seen = { labels: await classify() };
} catch (error) {
  seen = { name: error.name, message: error.message, status: error.httpResponse?.status };
}
console.log(JSON.stringify(seen));
