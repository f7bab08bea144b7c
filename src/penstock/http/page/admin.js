/** Admin. */

import { html } from "./ui.js";

export const Admin = () => html`<p class="empty">Not here yet.</p>`;
