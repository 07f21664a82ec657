// Show the composed message as code for the API.

const shellQuote = (text) => `'${text.replace(/'/g, "'\\''")}'`;

export function codeSamplesFor(body) {
  const url = document.body.dataset.url;
  const shown = body.attachments
    ? { ...body, attachments: body.attachments.map((attachment) => ({ ...attachment, content: "<base64>" })) }
    : body;
  const json = JSON.stringify(shown, null, 2);
  const curl = [
    `curl -s ${url}/v1/send`,
    '  -H "Authorization: Bearer $MAILKITE_API_KEY"',
    "  -H 'Content-Type: application/json'",
    '  -H "Idempotency-Key: $(uuidgen)"',
    `  -d ${shellQuote(json)}`,
  ].join(" \\\n");
  const node = `import { MailKite } from "mailkite";

const mailkite = new MailKite(process.env.MAILKITE_API_KEY, { baseUrl: ${JSON.stringify(url)} });

await mailkite.send(${json});`;
  const python = `import json, os, urllib.request

message = ${json}
request = urllib.request.Request(
    ${JSON.stringify(`${url}/v1/send`)}, json.dumps(message).encode(),
    {"Authorization": "Bearer " + os.environ["MAILKITE_API_KEY"], "Content-Type": "application/json"})
print(urllib.request.urlopen(request).read().decode())`;
  const fetch = `await fetch(${JSON.stringify(`${url}/v1/send`)}, {
  method: "POST",
  headers: { authorization: \`Bearer \${process.env.MAILKITE_API_KEY}\`, "content-type": "application/json" },
  body: JSON.stringify(${json}),
});`;
  return { curl, node, python, fetch };
}
