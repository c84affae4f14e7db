// Writes the types of an OpenAPI document for openapi-fetch: node generate.js DOCUMENT FILE
import { readFile, writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";
import ts from "typescript";

const [document, file] = process.argv.slice(2);
const BLOB = ts.factory.createTypeReferenceNode("Blob");
const ast = await openapiTS(JSON.parse(await readFile(document, "utf8")), {
  transform: (schema) => (schema.format === "binary" ? BLOB : undefined), // by default, a string
});
await writeFile(file, astToString(ast));
