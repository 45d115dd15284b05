"""Accounts on a local federation, made through the client API."""

import json
import secrets
import struct
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path

PASSWORD = "correct horse battery"
PATIENCE = 30


def call(base, method, path, body=None, token=None):
    """Status, headers and JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data=data, method=method)
    request.add_header("content-type", "application/json")
    if token:
        request.add_header("authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            status, headers, text = answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as refusal:
        status, headers, text = refusal.code, refusal.headers, refusal.read()
    return status, headers, json.loads(text) if text else None


def wanted(base, method, path, body=None, token=None):
    """The JSON of an answer that must be a success, and its headers."""
    status, headers, answer = call(base, method, path, body, token)
    if status >= 300:
        raise RuntimeError(f"{method} {path}: {status} {answer}")
    return answer, headers


def code_for(mail_folder, email):
    """The newest code that was mailed to an address."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        # Names begin with the time; one that is still being written ends otherwise.
        for mail in sorted(Path(mail_folder).glob("*.eml"), reverse=True):
            text = mail.read_text(errors="replace")
            if email in text:
                for line in text.splitlines():
                    if line.lower().startswith("x-zeta-code:"):
                        return line.split(":", 1)[1].strip()
        time.sleep(0.05)
    raise RuntimeError("no mail with a code came")


def prekey(number):
    """A Proteus prekey bundle with random public keys: CBOR {0: 1, 1: number, 2: key, 3: {0: {0: key}}}."""
    key = b"\xa1\x00\x58\x20" + secrets.token_bytes(32)
    bundle = b"\xa4\x00\x01\x01\x19" + struct.pack(">H", number) + b"\x02" + key + b"\x03\xa1\x00" + key
    return {"id": number, "key": b64encode(bundle).decode()}


def new_user(backend):
    """A new user with a client: ids, token and cookie."""
    base = backend["api"] + "/v13"
    email = f"u{secrets.token_hex(8)}@mail.test"
    wanted(base, "POST", "/activate/send", {"email": email})
    code = code_for(backend["mail_dir"], email)
    body = {"name": "Somebody", "email": email, "email_code": code, "password": PASSWORD}
    me, headers = wanted(base, "POST", "/register", body)
    cookie = headers["set-cookie"].split(";")[0]
    login, _ = wanted(base, "POST", "/login?persist=true", {"email": email, "password": PASSWORD})
    token = login["access_token"]
    handle = "h" + secrets.token_hex(8)
    wanted(base, "PUT", "/self/handle", {"handle": handle}, token)
    keys = {"type": "permanent", "prekeys": [prekey(n) for n in range(300, 310)], "lastkey": prekey(65535)}
    client, _ = wanted(base, "POST", "/clients", keys, token)
    return {
        "domain": backend["domain"],
        "id": me["id"],
        "email": email,
        "handle": handle,
        "client": client["id"],
        "cookie": cookie,
        "token": token,
    }


def connect(backend, first, second, other_backend):
    """Connects two users."""
    wanted(backend["api"] + "/v13", "POST", f"/connections/{second['domain']}/{second['id']}", None, first["token"])
    deadline = time.monotonic() + PATIENCE
    path = f"/connections/{first['domain']}/{first['id']}"
    while call(other_backend["api"] + "/v13", "PUT", path, {"status": "accepted"}, second["token"])[0] >= 300:
        if time.monotonic() > deadline:
            raise RuntimeError("the connection did not come about")
        time.sleep(0.1)
