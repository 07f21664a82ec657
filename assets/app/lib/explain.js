// Explain the server's codes in plain words.

/** Reasons of failed webhook attempts (contract 6.1): title and hint. */
const ATTEMPT_ERRORS = {
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
  gone: ["Gone", "The endpoint answered 410, so it is not tried again. Retry by hand if that was a mistake."],
  route_gone: ["Route gone", "The route was deleted or paused before this could be delivered."],
  message_gone: ["Message gone", "The message was deleted, or its retention ended, before this could be delivered."],
  endpoint_failing: [
    "Endpoint failing",
    "The endpoint took nothing for as long as the retry schedule lasts, so this was given up. Retry it once it works.",
  ],
  message_damaged: [
    "Message damaged",
    "What the server had stored of the message is missing or damaged, so nothing was posted. The operator was " +
      "notified.",
  ],
};

export const explainAttemptError = (code) => ATTEMPT_ERRORS[code] || [code, ""];

/** Statuses of sent messages (contract 8.5): title, tone and hint. */
export const SEND_STATUSES = {
  scheduled: ["Scheduled", "info", "Waiting for its scheduled time."],
  canceled: ["Canceled", "", "Canceled before its time."],
  queued: ["Queued", "info", "Waiting for its first attempt."],
  deferred: ["Deferred", "warn", "Refused for now; retried for up to 72 hours."],
  sent: ["Sent", "good", "Every recipient's server has accepted it."],
  bounced: ["Bounced", "bad", "At least one recipient refused it for good."],
  failed: ["Failed", "bad", "Given up: the domain may no longer send, or the message could not be composed."],
  received: ["Received", "", "Stored."],
  dropped: ["Dropped", "", "Dropped by your webhook; its content is deleted."],
  sending: ["Sending", "info", "On its way."],
};
