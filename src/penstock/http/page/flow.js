/** Flow. */

import { html } from "./ui.js";

export const Flow = () => html`<p class="empty">Not here yet.</p>`;
