// The call behind a result, as text that runs as it is. A key is read from the environment, never written down.

import { toFields } from "./fields.js";

const KEY_VARIABLE = "IMAGE_ANALYSIS_API_KEY";

/** `request`: {base, name, url, options, hasKey}; `base` is the service's address, ending with a slash. */
export const SNIPPETS = {
  curl: { write: writeCurl, hint: ({ url }) => (url ? "" : "Run it in the folder of the image.") },
  python: { write: writePython, hint: () => "Needs the package image-analysis-client." },
  javascript: { write: writeJavaScript, hint: () => "Save it as classify.mjs and run it with Node 18 or newer." },
};

function writeCurl({ base, name, url, options, hasKey }) {
  const lines = [`curl -s ${quoteShell(`${base}analyze-image`)}`, "-H 'Prefer: wait=30'"];
  if (hasKey) lines.push(`-H "Authorization: Bearer $${KEY_VARIABLE}"`);
  lines.push(url ? `--form-string ${quoteShell(`image_url=${url}`)}` : `-F ${quoteShell(`file=@${quoteForm(name)}`)}`);
  for (const [option, value] of toFields(options)) lines.push(`--form-string ${quoteShell(`${option}=${value}`)}`);
  return lines.join(" \\\n  ");
}

function writePython({ base, name, url, options, hasKey }) {
  const source = url ?? plainPath(name);
  const given = Object.entries(options).map(([option, value]) => `, ${option}=${JSON.stringify(value)}`);
  return [
    "from image_analysis_client import Client",
    "",
    hasKey ? `# The key is read from ${KEY_VARIABLE}.` : null,
    `with Client(${JSON.stringify(base.replace(/\/$/, ""))}) as client:`,
    `    result = client.classify(${JSON.stringify(source)}${given.join("")})`,
    "for prediction in result.predictions:",
    '    print(f"{prediction.label}: {prediction.confidence:.1%}")',
  ]
    .filter((line) => line !== null)
    .join("\n");
}

function writeJavaScript({ base, name, url, options, hasKey }) {
  const fields = toFields(options).map(([option, value]) => `form.append(${JSON.stringify(option)}, ${JSON.stringify(value)});`);
  const path = JSON.stringify(name);
  const key = hasKey ? `, Authorization: \`Bearer \${process.env.${KEY_VARIABLE}}\`` : "";
  return [
    ...(url ? [] : ['import { readFile } from "node:fs/promises";', ""]),
    "const form = new FormData();",
    url ? `form.append("image_url", ${JSON.stringify(url)});` : `form.append("file", new Blob([await readFile(${path})]), ${path});`,
    ...fields,
    `const response = await fetch(${JSON.stringify(`${base}analyze-image`)}, {`,
    '  method: "POST",',
    `  headers: { Prefer: "wait=30"${key} },`,
    "  body: form,",
    "});",
    "console.log(JSON.stringify(await response.json(), null, 2));",
  ].join("\n");
}

function quoteShell(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** Quote a file's name for `-F`, where a comma or a semicolon would end it. */
function quoteForm(name) {
  const path = plainPath(name);
  return /[",;\\]/.test(path) ? `"${path.replace(/[\\"]/g, String.raw`\$&`)}"` : path;
}

/** Write a name so that no program takes it for an option or for standard input. */
function plainPath(name) {
  return name.startsWith("-") ? `./${name}` : name;
}
