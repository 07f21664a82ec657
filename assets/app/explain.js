// What the words of the server mean, for people.

/** Why a webhook attempt failed (contract 6.1). */
export const ATTEMPT_ERRORS = {
  timeout: ["Timed out", "The endpoint did not answer within 15 seconds. Acknowledge first, work afterwards."],
  dns: ["Name not found", "The endpoint's host name does not resolve. Check the URL for a typo."],
  connect: ["No connection", "Nothing accepted the connection. Is your app running, and on this port?"],
  tls: ["TLS failed", "The endpoint's certificate is not valid for its name, has expired, or is not trusted."],
  blocked_address: [
    "Blocked address",
    "The URL leads to a private or reserved address. The operator can allow networks with webhook.allow_networks.",
  ],
  bad_response: ["Not HTTP", "What answered did not speak HTTP."],
  http_status: ["Refused", "The endpoint answered with a status other than 2xx. Its answer below says why."],
  no_ack: [
    "Not acknowledged",
    'The route is in ack mode: besides 2xx it wants {"status":"ok"} in the body or the header x-mailkite-ack: ok.',
  ],
  gone: ["Gone", "The endpoint answered 410, which means: never again. Retry by hand if that was a mistake."],
  route_gone: ["Route gone", "The route was deleted or paused before this could be delivered."],
  message_gone: ["Message gone", "The message was deleted, or its retention ended, before this could be delivered."],
  endpoint_failing: [
    "Endpoint failing",
    "The endpoint took nothing for as long as the retry schedule lasts, so this was given up. Retry it once it works.",
  ],
  message_damaged: [
    "Message damaged",
    "What the server had stored of the message is missing or damaged, so nothing was posted. The operator was alarmed.",
  ],
};

export const attemptError = (word) => ATTEMPT_ERRORS[word] || [word, ""];

/** The latest outcome of a route (contract 4.3), and what held a forward back (contract 4.6). */
const OUTCOMES = {
  delivered: ["Delivered", "good", ""],
  sent: ["Forwarded", "good", ""],
  deferred: ["Put off", "warn", "The destination's server refused it for now; it is tried again for up to 72 hours."],
  failed: ["Failed", "bad", ""],
  unverified: ["Not forwarded", "bad", "Your own e-mail address is not verified. The mail is stored."],
  unproven: ["Not forwarded", "bad", "The destination had not confirmed that it wants this mail. The mail is stored."],
  suppressed: ["Not forwarded", "bad", "The destination is on your list of suppressed addresses. The mail is stored."],
  refused: ["Not forwarded", "bad", "Its author is not proven, so it may be forged. The mail is stored."],
};

export const routeOutcome = (word) => OUTCOMES[word] || [word, "bad", ""];

/** What a forward route does with mail that may be forged (contract 4.6). */
export const ON_AUTH_FAIL = [
  ["refuse", "Keep it here", "Mail whose author is not proven, so that it may be forged, is stored and not forwarded."],
  [
    "rewrite",
    "Forward it as yours",
    "Mail whose author is not proven leaves as “Name via your domain”, from the route’s address, or noreply@ your domain if it matches several; its author is in Reply-To. Your domain signs it, so it has to be verified for sending. Mail that claims to be from your own domains is stored.",
  ],
];

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
    ham: "Nothing speaks against it.",
    spam: "Judged as spam, by its verdicts, your block list or your webhook.",
  },
};

export const verdict = (kind, word) => ({
  what: VERDICTS[kind]?.what || kind,
  text: word === null || word === undefined ? "Not checked." : VERDICTS[kind]?.[word] || "",
  tone:
    word === "pass" || word === "ham"
      ? "good"
      : word === "fail" || word === "spam" || word === "permerror"
        ? "bad"
        : word === null || word === "none" || word === undefined
          ? ""
          : "warn",
});

/** States of a message that was sent (contract 8.5). */
export const SEND_STATES = {
  scheduled: ["Scheduled", "info", "Waits for its time."],
  canceled: ["Canceled", "", "Canceled before its time."],
  queued: ["Queued", "info", "Waits for its first attempt."],
  deferred: ["Deferred", "warn", "Refused for now; tried again for up to 72 hours."],
  sent: ["Sent", "good", "Every recipient's server has accepted it."],
  bounced: ["Bounced", "bad", "At least one recipient refused it for good."],
  failed: ["Failed", "bad", "Given up here: the domain lost its right to send, or the message could not be made."],
  received: ["Received", "", "Stored."],
  dropped: ["Dropped", "", "Your webhook said to drop it; its content is deleted."],
  sending: ["Sending", "info", "On its way."],
};

/** Where to enter DNS records, by who hosts the zone. Name is how the host part is written. */
export const PROVIDERS = {
  generic: [
    "Any provider",
    "Enter the name as shown. Some providers add the domain themselves: then leave it out, and write @ for the domain itself.",
    (name) => name,
  ],
  cloudflare: [
    "Cloudflare",
    "DNS → Records → Add record. Set the proxy to “DNS only” for the A record of the mail host; the cloud must be grey.",
    (name, zone) => (name === zone ? "@" : name.replace(`.${zone}`, "")),
  ],
  route53: [
    "Route 53",
    "Hosted zone → Create record. Put TXT values in double quotes; split values over 255 characters into several quoted strings, which “copy” has done.",
    (name) => name,
  ],
  godaddy: [
    "GoDaddy",
    "My Products → DNS → Add. Write only what stands before the domain, @ for the domain itself.",
    (name, zone) => (name === zone ? "@" : name.replace(`.${zone}`, "")),
  ],
  namecheap: [
    "Namecheap",
    "Advanced DNS → Add new record; MX records are under “Mail settings → Custom MX”. Leave the domain out of the host.",
    (name, zone) => (name === zone ? "@" : name.replace(`.${zone}`, "")),
  ],
  hetzner: [
    "Hetzner",
    "DNS console → Records. End full host names in values with a dot.",
    (name, zone) => (name === zone ? "@" : name.replace(`.${zone}`, "")),
  ],
  ovh: [
    "OVH",
    "Web Cloud → DNS zone → Add an entry. Leave the sub-domain empty for the domain itself.",
    (name, zone) => (name === zone ? "" : name.replace(`.${zone}`, "")),
  ],
  bind: ["Zone file", "Lines for a zone file of BIND, Knot or NSD.", (name) => `${name}.`],
};

/** What a record is for, and what is wrong with it when it is not found. */
export const RECORDS = [
  ["Receiving", "Tells the world that mail for this domain comes to this server. Needed to receive."],
  ["SPF", "Says that this server may send for the domain. Needed to send."],
  ["DKIM", "The public key of the signature on everything you send. Needed to send."],
  ["DMARC", "Tells receivers what to do with forgeries. Optional, and asked for by the large receivers."],
  ["DKIM, Ed25519", "A second, shorter signature. Optional."],
];

export function recordProblem(record) {
  const found = record.found || [];
  if (record.status === "missing")
    return "Nothing of this kind is published yet. DNS can take some minutes to show a new record.";
  if (record.status === "unchecked") return "Not looked at yet, or DNS did not answer.";
  if (record.status !== "mismatch") return "";
  if (record.type === "MX")
    return "Mail of this domain goes elsewhere. Replace what is published by this record; to leave it as it is, use a sub-domain here, such as in.example.com.";
  const spf = found.filter((value) => /^"?v=spf1/i.test(value));
  if (/^v=spf1/i.test(record.value)) {
    if (spf.length > 1) return "There is more than one SPF record, which makes all of them void. Merge them into one.";
    const part = record.value.match(/(?:a|include):\S+/)?.[0];
    return `There is an SPF record, without this server. Add ${part} to it, before its “all”.`;
  }
  if (/p=/.test(record.value) && /DKIM1/.test(record.value))
    return "Another key is published here. Replace it; long values must not lose characters at the quotes.";
  return "Something else is published here. Replace it by the value above.";
}
