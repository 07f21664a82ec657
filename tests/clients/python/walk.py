"""README's walk by the functions that were generated of the server's OpenAPI document, and by nothing else.

walk.py HTTP-URL SMTP-HOST:PORT
"""

import smtplib
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

from mailkite_client import AuthenticatedClient, Client
from mailkite_client.api.account import create_scoped_key, get_api_key, get_usage, me
from mailkite_client.api.attachments import download_attachment, upload_attachment
from mailkite_client.api.deliveries import list_deliveries, list_delivery_attempts, retry_delivery
from mailkite_client.api.domains import create_domain, list_domains, set_webhook, verify_domain
from mailkite_client.api.messages import get_message, get_raw_message, list_messages
from mailkite_client.api.routes import create_route, list_routes
from mailkite_client.api.sending import cancel_scheduled, send
from mailkite_client.api.service import get_health, get_readiness
from mailkite_client.api.signing_in import log_in, sign_up
from mailkite_client.api.suppressions_and_blocked_senders import add_suppression
from mailkite_client.api.templates import list_base_templates
from mailkite_client.models import (
    CreateDomainRequest,
    CreateRouteRequest,
    CreateScopedKeyRequest,
    Error,
    ListDeliveriesStatus,
    ListMessagesDirection,
    LogInRequest,
    Readiness,
    SendRequest,
    SignUpRequest,
    SuppressionRequest,
    TemplateData,
    UploadRequest,
    WebhookRequest,
)
from mailkite_client.types import Response, Unset

T = TypeVar("T")


def done(response: "Response[T | Error]", status: int) -> T:
    """What an answer of this status holds."""
    assert response.status_code == status, response
    assert response.parsed is not None and not isinstance(response.parsed, Error), response
    return response.parsed


def refused(response: "Response[T | Error]", status: int, code: str) -> Error:
    """The error that an answer holds."""
    assert response.status_code == status, response
    assert isinstance(response.parsed, Error) and response.parsed.code == code, response
    return response.parsed


class Hook(BaseHTTPRequestHandler):
    """A webhook's endpoint."""

    posted: list[bytes] = []
    came = threading.Semaphore(0)

    def do_POST(self) -> None:
        self.posted.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()
        self.came.release()

    def log_message(self, format: str, *args: object) -> None:
        pass


def settled(api: AuthenticatedClient, delivery: str) -> None:
    """Waits until a delivery was recorded as delivered."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        page = done(list_deliveries.sync_detailed(client=api, status=ListDeliveriesStatus.DELIVERED), 200)
        if delivery in [one.id for one in page.deliveries]:
            return
    raise AssertionError(f"{delivery} was not delivered")


def walk(http: str, smtp: str, hook: str) -> None:
    anybody = Client(base_url=http)
    assert done(get_health.sync_detailed(client=anybody), 200).ok
    ready = get_readiness.sync_detailed(client=anybody)
    assert ready.status_code == 200 and isinstance(ready.parsed, Readiness) and ready.parsed.checks.storage

    # An account and its key.
    login = LogInRequest(email="you@example.com", password="correct horse battery")
    refused(log_in.sync_detailed(client=anybody, body=login), 401, "bad_login")
    weak = refused(sign_up.sync_detailed(client=anybody, body=SignUpRequest("you@example.com", "short")), 400, "weak_password")
    assert weak.field == "password"
    made = done(sign_up.sync_detailed(client=anybody, body=SignUpRequest("you@example.com", "correct horse battery")), 201)
    session = AuthenticatedClient(base_url=http, token=made.token)
    key = done(get_api_key.sync_detailed(client=session), 200).key
    api = AuthenticatedClient(base_url=http, token=key)
    assert done(me.sync_detailed(client=api), 200).email == "you@example.com"

    # A domain, with the DNS records to publish; then the check.
    added = done(create_domain.sync_detailed(client=api, body=CreateDomainRequest("acme.test")), 201)
    assert added.dns[0].type_ == "MX" and added.domain.status == "pending"
    assert done(verify_domain.sync_detailed("acme.test", client=api), 200).status == "verified"
    assert [domain.domain for domain in done(list_domains.sync_detailed(client=api), 200)] == ["acme.test"]

    # Where its mail goes.
    webhook = done(set_webhook.sync_detailed("acme.test", client=api, body=WebhookRequest(hook)), 200)
    assert webhook.signing_secret.startswith("whsec_")

    # A mail, and what arrived.
    host, port = smtp.rsplit(":", 1)
    with smtplib.SMTP(host, int(port)) as mail:
        mail.sendmail("ada@example.com", ["you@acme.test"], b"Subject: Hi\r\n\r\nDoes it branch?\r\n")
    assert Hook.came.acquire(timeout=30)
    listed = done(list_messages.sync_detailed(client=api, direction=ListMessagesDirection.INBOUND), 200)
    assert [message.subject for message in listed] == ["Hi"]
    detail = done(get_message.sync_detailed(listed[0].id, client=api), 200)
    assert detail.message.text_body is not None and detail.message.text_body.strip() == "Does it branch?"
    raw = done(get_raw_message.sync_detailed(listed[0].id, client=api), 200)
    assert b"Does it branch?" in raw.payload.read()

    # Its delivery: once more now, and every attempt.
    [delivery] = detail.deliveries
    settled(api, delivery.id)
    again = done(retry_delivery.sync_detailed(delivery.id, client=api), 200)
    assert again.ok and again.status == 200
    assert Hook.came.acquire(timeout=30) and Hook.posted[0] == Hook.posted[1]
    attempts = done(list_delivery_attempts.sync_detailed(delivery.id, client=api), 200)
    assert [(attempt.attempt, attempt.manual) for attempt in attempts] == [(2, True), (1, False)]
    assert "x-mailkite-signature" in attempts[0].request_headers
    page = done(list_deliveries.sync_detailed(client=api, status=ListDeliveriesStatus.DELIVERED, limit=1), 200)
    assert [one.id for one in page.deliveries] == [delivery.id]

    # A message, and once more with the same key.
    message = SendRequest(from_="Acme <hello@acme.test>", to="ada@example.com", subject="Hi", text="It branches.")
    sent = [send.sync_detailed(client=api, body=message, idempotency_key="order-1017") for _ in range(2)]
    assert done(sent[0], 202).id == done(sent[1], 202).id and sent[1].headers["idempotent-replayed"] == "true"
    [outbound] = done(list_messages.sync_detailed(client=api, direction=ListMessagesDirection.OUTBOUND), 200)
    assert outbound.to_addr == "ada@example.com"

    # A built-in template, tomorrow; and not after all.
    assert "base_welcome" in [one.id for one in done(list_base_templates.sync_detailed(client=api), 200)]
    data = TemplateData.from_dict({"name": "Ada"})
    later = SendRequest(
        from_="hello@acme.test", to=["ada@example.com"], template_id="base_welcome", template_data=data, scheduled_at="tomorrow"
    )
    scheduled = done(send.sync_detailed(client=api, body=later), 202)
    assert not isinstance(scheduled.scheduled_at, Unset)
    assert done(cancel_scheduled.sync_detailed(scheduled.id, client=api), 200).status == "canceled"

    # A file up, and down by its signed link.
    upload = UploadRequest(content="SGVsbG8=", filename="hello.txt", content_type="text/plain")
    uploaded = done(upload_attachment.sync_detailed(client=api, body=upload), 201)
    path, query = uploaded.url.split("/att/", 1)[1].split("?", 1)
    mid, index = path.split("/")
    link = dict(pair.split("=", 1) for pair in query.split("&"))
    whole = done(download_attachment.sync_detailed(mid, index, client=anybody, exp=link["exp"], sig=link["sig"]), 200)
    assert whole.payload.read() == b"Hello"
    part = download_attachment.sync_detailed(mid, index, client=anybody, exp=link["exp"], sig=link["sig"], range_="bytes=1-2")
    assert done(part, 206).payload.read() == b"el"
    changed = download_attachment.sync_detailed(mid, index, client=anybody, exp=link["exp"], sig="0" * 64)
    refused(changed, 403, "bad_signature")

    # What else there is of each kind: routes, keys, a list of addresses, figures.
    route = CreateRouteRequest(match="drop@acme.test", action="drop")
    done(create_route.sync_detailed(client=api, body=route), 201)
    refused(create_route.sync_detailed(client=api, body=route), 409, "route_exists")
    assert len(done(list_routes.sync_detailed(client=api), 200)) == 2
    scoped = done(create_scoped_key.sync_detailed(client=session, body=CreateScopedKeyRequest("acme.test", name="blog")), 201)
    limited = AuthenticatedClient(base_url=http, token=str(scoped.key))
    refused(get_api_key.sync_detailed(client=limited), 403, "key_scope")
    done(add_suppression.sync_detailed(client=api, body=SuppressionRequest("bob@example.com")), 201)
    assert done(get_usage.sync_detailed(client=api), 200).used == 2


if __name__ == "__main__":
    endpoint = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    walk(sys.argv[1], sys.argv[2], f"http://127.0.0.1:{endpoint.server_port}/hook")
