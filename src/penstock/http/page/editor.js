/** Links that open a file at its line in the reader's editor, and the setting that says which that is. */

import { html, useState } from "./ui.js";

const STORED = "penstock.editor";

/** Addresses that editors register with the system; `{path}` begins with a slash. */
const EDITORS = {
  "": ["None", ""],
  vscode: ["Visual Studio Code", "vscode://file{path}:{line}"],
  vscodium: ["VSCodium", "vscodium://file{path}:{line}"],
  cursor: ["Cursor", "cursor://file{path}:{line}"],
  zed: ["Zed", "zed://file{path}:{line}"],
  idea: ["IntelliJ IDEA", "idea://open?file={path}&line={line}"],
  textmate: ["TextMate", "txmt://open?url=file://{path}&line={line}"],
  own: ["Another one", ""],
};

const SAFE = /^(?!(?:javascript|data|vbscript|blob):)[a-z][a-z0-9+.-]*:/i;

export function readEditor() {
  try { return { editor: "", template: "", root: "", ...JSON.parse(localStorage.getItem(STORED) ?? "{}") }; } catch { return { editor: "", template: "", root: "" }; }
}

/**
 * The address that opens a file, or `null` where there is none.
 *
 * @param root Directory of its source, as the server knows it; the reader's own setting comes first.
 */
export function editorLink({ editor, template, root: own }, root, path, line) {
  const form = editor === "own" ? template : EDITORS[editor]?.[1];
  const folder = own || root;
  if (!form || !folder || !SAFE.test(form)) return null;
  const whole = `${folder.replace(/\/+$/, "")}/${path}`;
  return form.replaceAll("{path}", whole.split("/").map(encodeURIComponent).join("/")).replaceAll("{line}", String(line));
}

/** The setting, as a part of a form. */
export function EditorSetting({ value, change }) {
  const [open, setOpen] = useState(false);
  const set = (part) => {
    const next = { ...value, ...part };
    try { localStorage.setItem(STORED, JSON.stringify(next)); } catch { /* until this tab is closed */ }
    change(next);
  };
  return html`<details class="setting" open=${open} onToggle=${(event) => setOpen(event.target.open)}>
    <summary>Editor</summary>
    <label>Open lines in <select value=${value.editor} onChange=${(event) => set({ editor: event.target.value })}>
      ${Object.entries(EDITORS).map(([key, [name]]) => html`<option value=${key}>${name}</option>`)}</select></label>
    ${value.editor === "own" && html`<label>Address, with <code>{path}</code> and <code>{line}</code>
      <input value=${value.template} onInput=${(event) => set({ template: event.target.value })} spellcheck="false" placeholder="myeditor://open?file={path}&line={line}" /></label>`}
    ${value.editor && html`<label>Folder of the files here, if not the server's
      <input value=${value.root} onInput=${(event) => set({ root: event.target.value })} spellcheck="false" placeholder="/home/me/project" /></label>`}
  </details>`;
}
