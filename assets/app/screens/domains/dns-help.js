// Explain DNS records, what is wrong with them, and how to enter them at common DNS providers.

/** DNS providers: name, where to enter records, and how the provider writes a record's name. */
export const DNS_PROVIDERS = {
  generic: [
    "Any provider",
    "Enter the name as shown. Some providers add the domain themselves: then leave it out, and write @ for the " +
      "domain itself.",
    (name) => name,
  ],
  cloudflare: [
    "Cloudflare",
    "DNS → Records → Add record. Set the proxy to “DNS only” for the A record of the mail host; the cloud must " +
      "be grey.",
    (name, zone) => (name === zone ? "@" : name.replace(`.${zone}`, "")),
  ],
  route53: [
    "Route 53",
    "Hosted zone → Create record. Put TXT values in double quotes; split values over 255 characters into " +
      "several quoted strings, which the copied value already has.",
    (name) => name,
  ],
  godaddy: [
    "GoDaddy",
    "My Products → DNS → Add. Enter only the part before the domain, or @ for the domain itself.",
    (name, zone) => (name === zone ? "@" : name.replace(`.${zone}`, "")),
  ],
  namecheap: [
    "Namecheap",
    "Advanced DNS → Add new record; MX records are under “Mail settings → Custom MX”. Leave the domain out of " +
      "the host.",
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

/** Title and purpose of each record, in the order of the API. */
export const DNS_RECORDS = [
  ["Receiving", "Tells the world that mail for this domain comes to this server. Needed to receive."],
  ["SPF", "Says that this server may send for the domain. Needed to send."],
  ["DKIM", "The public key of the signature on everything you send. Needed to send."],
  ["DMARC", "Tells receivers what to do with forgeries. Optional, and asked for by the large receivers."],
  ["DKIM, Ed25519", "A second, shorter signature. Optional."],
];

/** Badge and explanation of the record of a DKIM key that does not sign, by its part in a rotation. */
export const ROTATION = {
  next: ["New", "Publish it beside the present one. It signs once it is found; nothing depends on it until then."],
  retiring: ["Keep", "It signs no more, but mail that it signed is still on its way. Keep the record for now."],
  retired: ["May be removed", "Nothing is signed with it any more, and its private key is deleted. Remove the record."],
};

/** Title of the record of a DKIM key that does not sign. */
export const rotatingTitle = (record) => (/k=ed25519/.test(record.value) ? "DKIM, Ed25519" : "DKIM");

export function explainRecordProblem(record) {
  const found = record.found || [];
  if (record.status === "missing")
    return "No such record is published yet. A new record can take some minutes to show up in DNS.";
  if (record.status === "unchecked") return "Not checked yet, or DNS did not answer.";
  if (record.status !== "mismatch") return "";
  if (record.type === "MX")
    return (
      "Mail of this domain goes elsewhere. Replace the published record with this one; or keep it, and use a " +
      "subdomain here, such as in.example.com."
    );
  const spfRecords = found.filter((value) => /^"?v=spf1/i.test(value));
  if (/^v=spf1/i.test(record.value)) {
    if (spfRecords.length > 1)
      return "There is more than one SPF record, which makes all of them void. Merge them into one.";
    const mechanism = record.value.match(/(?:a|include):\S+/)?.[0];
    return `There is an SPF record, without this server. Add ${mechanism} to it, before its “all”.`;
  }
  if (/p=/.test(record.value) && /DKIM1/.test(record.value))
    return "Another key is published here. Replace it; long values must not lose characters at the quotes.";
  return "Something else is published here. Replace it with the value above.";
}
