// The files of dropped folders, in the order in which people sort names.

const IMAGE = /\.(jpe?g|png|webp|gif|avif|bmp)$/i;
const names = new Intl.Collator(undefined, { numeric: true });

/** Split the files of a folder into images and a count of the rest. */
export function pickImages(files) {
  const images = files.filter((file) => !file.name.startsWith(".") && (file.type.startsWith("image/") || IMAGE.test(file.name)));
  images.sort((one, other) => names.compare(one.webkitRelativePath || one.name, other.webkitRelativePath || other.name));
  return { images, skipped: files.length - images.length };
}

/** Read what was dropped. Entries must be taken before the first await: the browser empties the list after that. */
export async function readDrop(transfer) {
  const entries = Array.from(transfer.items, (item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return { files: [...transfer.files], fromFolder: [] };
  const files = [];
  const fromFolder = [];
  for (const entry of entries) {
    if (entry.isDirectory) fromFolder.push(...(await readFolder(entry)));
    else files.push(await readFile(entry));
  }
  return { files, fromFolder };
}

async function readFolder(folder) {
  const reader = folder.createReader();
  const files = [];
  for (;;) {
    // A call gives a hundred entries at most; an empty list is the end.
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return files;
    for (const entry of entries) {
      if (entry.isDirectory) files.push(...(await readFolder(entry)));
      else files.push(await readFile(entry));
    }
  }
}

function readFile(entry) {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}
