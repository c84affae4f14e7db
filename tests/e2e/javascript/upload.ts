// Uploads a file with the generated types and prints its job: node upload.js URL FILE
import { readFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const [baseUrl, path] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl });

function toForm(fields: object): FormData {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields))
    for (const part of Array.isArray(value) ? value : [value])
      form.append(name, part instanceof Blob ? part : String(part));
  return form;
}

const file = new Blob([await readFile(path)]);
const single = await client.POST("/analyze-image", {
  params: { header: { Prefer: "wait=30" } },
  body: { file, top_k: 3, priority: "high" },
  bodySerializer: toForm,
});
if (!single.data || !("result" in single.data)) throw new Error(JSON.stringify(single));
const status: components["schemas"]["AnalysisStatus"] = single.data;

const several = await client.POST("/analyze-images", { body: { file: [file, file] }, bodySerializer: toForm });
const byBase64 = await client.POST("/analyze-image", { body: { image_data: "?" } });

console.log(
  JSON.stringify({
    label: status.result?.label,
    predictions: status.result?.predictions.length,
    counts: several.data?.counts,
    code: byBase64.error?.code,
  }),
);
