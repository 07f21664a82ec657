// Show the results of SPF, DKIM, DMARC and the spam check, each with its explanation.
import { html, useState } from "../../lib/preact.js";

const VERDICTS = {
  spf: {
    what: "SPF: may this server send for the sender's domain?",
    pass: "The sending server is one that the domain allows.",
    fail: "The domain forbids this server to send for it. Often forged, sometimes forwarded.",
    softfail: "The domain doubts that this server may send for it, but does not forbid it.",
    neutral: "The domain says nothing for or against this server.",
    none: "The domain publishes no SPF record.",
    temperror: "DNS did not answer, so there is no verdict.",
    permerror: "The domain's SPF record is broken.",
  },
  dkim: {
    what: "DKIM: is the message signed, and unchanged since?",
    pass: "A signature of the sender's domain is valid: the content is as it was sent.",
    fail: "There is a signature, and it does not fit. The message was changed on its way, or forged.",
    neutral: "There is a signature that could not be judged.",
    none: "The message is not signed.",
    temperror: "The key could not be looked up.",
    permerror: "The signature or its key is broken.",
  },
  dmarc: {
    what: "DMARC: do SPF or DKIM vouch for the address that people see?",
    pass: "The From address is proven by SPF or DKIM.",
    fail: "Nothing proves the From address. Treat it as possibly forged.",
    none: "The domain publishes no DMARC policy.",
    temperror: "The policy could not be looked up.",
    permerror: "The policy is broken.",
  },
  spam: {
    what: "Spam: how the message was judged",
    ham: "No sign of spam.",
    spam: "Judged as spam, by its verdicts, your block list or your webhook.",
  },
};

const explainVerdict = (kind, code) => ({
  what: VERDICTS[kind]?.what || kind,
  text: code === null || code === undefined ? "Not checked." : VERDICTS[kind]?.[code] || "",
  tone:
    code === "pass" || code === "ham"
      ? "good"
      : code === "fail" || code === "spam" || code === "permerror"
        ? "bad"
        : code === null || code === "none" || code === undefined
          ? ""
          : "warn",
});

export function VerdictBadges({ message }) {
  const [openKind, setOpenKind] = useState(null);
  const verdicts = ["spf", "dkim", "dmarc", "spam"].map((kind) => [
    kind,
    message[kind],
    explainVerdict(kind, message[kind]),
  ]);
  return html`
    <div class="verdicts">
      ${verdicts.map(
        ([kind, result, { tone }]) => html`
          <button
            type="button"
            key=${kind}
            class=${`badge ${tone}`}
            aria-expanded=${openKind === kind ? "true" : "false"}
            onClick=${() => setOpenKind(openKind === kind ? null : kind)}
          >
            ${kind === "spam" ? result || "Spam not checked" : `${kind.toUpperCase()} ${result || "not checked"}`}
          </button>
        `,
      )}
      ${
        openKind &&
        html`
          <p class="hint">
            <strong>${explainVerdict(openKind, message[openKind]).what}</strong>
            <br />
            ${explainVerdict(openKind, message[openKind]).text}
          </p>
        `
      }
    </div>
  `;
}
