// Explain how a route ended, and the choices a forward route has.

/** Latest outcomes of a route (contract 4.3) and of its forward checks (contract 4.6): title, tone and hint. */
const ROUTE_OUTCOMES = {
  delivered: ["Delivered", "good", ""],
  sent: ["Forwarded", "good", ""],
  deferred: ["Deferred", "warn", "The destination's server refused it for now; it is retried for up to 72 hours."],
  failed: ["Failed", "bad", ""],
  unverified: ["Not forwarded", "bad", "Your own e-mail address is not verified. The mail is stored."],
  unproven: ["Not forwarded", "bad", "The destination had not confirmed that it wants this mail. The mail is stored."],
  suppressed: ["Not forwarded", "bad", "The destination is on your list of suppressed addresses. The mail is stored."],
  refused: ["Not forwarded", "bad", "Its author is not proven, so it may be forged. The mail is stored."],
};

export const explainRouteOutcome = (code) => ROUTE_OUTCOMES[code] || [code, "bad", ""];

/** Options for mail that may be forged on a forward route (contract 4.6): value, title and hint. */
export const ON_AUTH_FAIL = [
  ["refuse", "Keep it here", "Mail whose author is not proven, so that it may be forged, is stored and not forwarded."],
  [
    "rewrite",
    "Forward it as yours",
    "Mail whose author is not proven leaves as “Name via your domain”, from the route’s address, or noreply@ " +
      "your domain if it matches several; its author is in Reply-To. Your domain signs it, so it has to be " +
      "verified for sending. Mail that claims to be from your own domains is stored.",
  ],
];
