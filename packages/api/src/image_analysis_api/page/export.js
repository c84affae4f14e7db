// The results as files: CSV for spreadsheets, JSON for programs.

const COLUMNS = {
  file: (item) => item.name,
  url: (item) => item.url ?? "",
  status: (item) => item.state.toUpperCase(),
  label: ({ job }) => job?.result?.label ?? "",
  confidence: ({ job }) => job?.result?.confidence ?? "",
  predictions: ({ job }) => (job?.result?.predictions ?? []).map(({ label, confidence }) => `${label} ${confidence}`).join("; "),
  model: ({ job }) => job?.result?.model.id ?? "",
  revision: ({ job }) => job?.result?.model.revision ?? "",
  cached: ({ job }) => (job?.result ? job.cached : ""),
  processing_time_ms: ({ job }) => job?.processing_time_ms ?? "",
  error_code: ({ error }) => error?.code ?? "",
  error_detail: ({ error }) => error?.detail ?? "",
  job_id: (item) => item.jobId ?? "",
};

export function toCsv(items) {
  const rows = items.map((item) => Object.values(COLUMNS).map((read) => read(item)));
  // Excel reads UTF-8 only after a byte order mark.
  return `\ufeff${[Object.keys(COLUMNS), ...rows].map((row) => row.map(writeCell).join(",")).join("\r\n")}\r\n`;
}

/** Write a cell. A spreadsheet would run a text that begins like a formula: an apostrophe makes it text. */
function writeCell(value) {
  let text = String(value);
  if (typeof value === "string" && /^\s*[=+\-@\t\r\n|\uFF1D\uFF0B\uFF0D\uFF20]/.test(text)) text = `'${text}`;
  return /[",\r\n;']/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function toJson(items) {
  const records = items.map(({ name, url, options, state, job, error, jobId }) => ({
    file: name,
    ...(url && { url }),
    options,
    status: state.toUpperCase(),
    job_id: jobId,
    result: job?.result ?? null,
    error,
    cached: job?.cached ?? false,
    processing_time_ms: job?.processing_time_ms ?? null,
  }));
  return `${JSON.stringify(records, null, 2)}\n`;
}

export function save(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
