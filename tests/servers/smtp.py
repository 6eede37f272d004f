#!/usr/bin/env python3
"""A real mail server for the tests: TLS, login, and answers by a script.

Prints its port as the first line. Each accepted mail becomes a JSON document in FOLDER, parsed by Python's own reader of
mails. It ends with its standard input.
"""

import argparse
import asyncio
import email
import email.policy
import json
import pathlib
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    def __init__(self, folder, answers):
        self.folder = pathlib.Path(folder)
        # `ADDRESS=250 words` is for a recipient, any other for a mail.
        self.answers = [answer for answer in answers if "@" not in answer]
        self.of_recipients = [answer.split("=", 1) for answer in answers if "@" in answer]
        self.count = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        for place, (whose, answer) in enumerate(self.of_recipients):
            if whose == address:
                del self.of_recipients[place]
                return answer
        envelope.rcpt_tos.append(address)
        return "250 taken"

    async def handle_DATA(self, server, session, envelope):
        answer = self.answers.pop(0) if self.answers else "250 taken"
        if answer == "hang":
            await asyncio.sleep(3600)
        if not answer.startswith("250"):
            return answer
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        text = message.get_body(("plain",))
        html = message.get_body(("html",))
        document = {
            "headers": [[name, str(value)] for name, value in message.items()],
            "subject": message["Subject"],
            "from": str(message["From"]),
            "to": str(message["To"]),
            "mail_from": envelope.mail_from,
            "rcpt_tos": envelope.rcpt_tos,
            "text": text.get_content() if text else None,
            "html": html.get_content() if html else None,
            "defects": [str(defect) for defect in message.defects],
            "is_tls": server.transport.get_extra_info("ssl_object") is not None,
            "user": (session.auth_data or ["", b""])[0],
        }
        self.count += 1
        path = self.folder / f"{self.count}.json"
        path.with_suffix(".new").write_text(json.dumps(document))
        path.with_suffix(".new").rename(path)
        return answer


class Authenticator:
    def __init__(self, user, password):
        self.user, self.password = user.encode(), password.encode()

    def __call__(self, server, session, envelope, mechanism, data):
        is_good = (data.login, data.password) == (self.user, self.password)
        return AuthResult(success=is_good, handled=False, auth_data=(data.login.decode(), b""))


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--tls", choices=["starttls", "implicit", "none"], default="none")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--user")
    parser.add_argument("--password-file")
    parser.add_argument("--answer", action="append", default=[])
    options = parser.parse_args()
    context = None
    if options.tls != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.cert, options.key)
    more = {}
    if options.user:
        password = pathlib.Path(options.password_file).read_text()
        more["authenticator"] = Authenticator(options.user, password)
        more["auth_required"] = True
        more["auth_require_tls"] = options.tls == "starttls"
    if options.tls == "starttls":
        more["tls_context"] = context
        more["require_starttls"] = True
    handler = Handler(options.folder, options.answer)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(handler, enable_SMTPUTF8=True, hostname="mail.test", loop=loop, **more),
        "127.0.0.1",
        0,
        ssl=context if options.tls == "implicit" else None,
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    # The end of standard input is the end of the test.
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()
    import os

    os._exit(0)


asyncio.run(main())
