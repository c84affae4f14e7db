// The files of dropped folders, in the order in which people sort names.

const IMAGE = /\.(jpe?g|png|webp|gif|avif|bmp)$/i;
const names = new Intl.Collator(undefined, { numeric: true });

/** Split the files of a folder into images and a count of the rest. */
export function pickImages(files) {
  const images = files.filter((file) => !file.name.startsWith(".") && (file.type.startsWith("image/") || IMAGE.test(file.name)));
  images.sort((one, other) => names.compare(one.webkitRelativePath || one.name, other.webkitRelativePath || other.name));
  return { images, skipped: files.length - images.length };
}

/**
 * Read what was dropped. `unreadable` counts the files and folders that cannot be read.
 * Entries must be taken before the first await: the browser empties the list after that.
 */
export async function readDrop(transfer) {
  const entries = Array.from(transfer.items, (item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return { files: [...transfer.files], fromFolder: [], unreadable: 0 };
  const files = [];
  const fromFolder = [];
  let unreadable = 0;
  for (const entry of entries) unreadable += await readEntry(entry, entry.isDirectory ? fromFolder : files);
  return { files, fromFolder, unreadable };
}

/** Say how many files and folders of a drop cannot be read; empty if all can. */
export function describeUnreadable(number) {
  if (!number) return "";
  return number === 1 ? "1 file or folder cannot be read and was left out." : `${number} files or folders cannot be read and were left out.`;
}

/** Add a file, or the files of a folder, to a list. Return how many cannot be read. */
async function readEntry(entry, files) {
  if (entry.isDirectory) return readFolder(entry, files);
  try {
    files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    return 0;
  } catch {
    return 1;
  }
}

async function readFolder(folder, files) {
  const reader = folder.createReader();
  let unreadable = 0;
  for (;;) {
    // A call gives a hundred entries at most; an empty list is the end.
    const entries = await new Promise((resolve) => reader.readEntries(resolve, () => resolve(null)));
    if (!entries) return unreadable + 1;
    if (!entries.length) return unreadable;
    for (const entry of entries) unreadable += await readEntry(entry, files);
  }
}
