// Show what a forward route waits for until its destination has confirmed.
import { html } from "../../lib/preact.js";
import { patch } from "../../lib/api.js";
import { useNow } from "../../lib/format.js";
import { apiPath } from "../../lib/paths.js";
import { Button, Notice, RelativeTime, toast } from "../../ui/index.js";

const DAY = 86_400_000;

/** The link is mailed to one address at most once in this time (contract 4.6) … */
const ASK_AGAIN_AFTER = 7 * DAY;

/** … and not for this time after the recipient has declined. */
const DECLINED_FOR = 90 * DAY;

/** Explain that the destination has to confirm. With `updateRoute`, the confirmation link can be mailed again. */
export function UnprovenNotice({ route, updateRoute }) {
  const now = useNow();
  const { destination, destination_asked_at: askedAt, destination_declined_at: declinedAt } = route;
  const askableAt = declinedAt ? declinedAt + DECLINED_FOR : askedAt ? askedAt + ASK_AGAIN_AFTER : 0;
  const mailLink = async () => {
    const answer = await patch(apiPath`/api/routes/${route.id}`, { destination });
    updateRoute(answer);
    if (answer.destination_proven) toast("The destination has confirmed");
    else if (answer.destination_asked_at !== askedAt) toast(`A link was mailed to ${destination}`);
    else toast("Not mailed: your e-mail is not verified, or too many links were mailed lately.", { error: true });
  };
  const mailbox = html`<bdi class="mono">${destination}</bdi>`;
  const situation = declinedAt
    ? html`Somebody at ${mailbox} declined <${RelativeTime} at=${declinedAt} />.`
    : askedAt
      ? html`A link was mailed to ${mailbox} <${RelativeTime} at=${askedAt} />.`
      : html`No link was mailed to ${mailbox} yet.`;
  const consequence = declinedAt
    ? "Mail is stored and not forwarded."
    : "Until somebody there follows it and confirms, mail is stored and not forwarded.";
  return html`
    <${Notice} tone="warn" title="Not forwarding yet">
      <p>${situation} ${consequence}</p>
      ${
        updateRoute &&
        (askableAt > now
          ? html`<p class="hint">The address can be asked again <${RelativeTime} at=${askableAt} />.</p>`
          : html`
            <p>
              <${Button} variant="small" icon="send" action=${mailLink}>
                ${askedAt ? "Mail the link again" : "Mail the link"}
              <//>
            </p>
          `)
      }
    <//>
  `;
}
