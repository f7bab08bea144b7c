/** Search. */

import { html } from "./ui.js";

export const Search = () => html`<p class="empty">Not here yet.</p>`;
