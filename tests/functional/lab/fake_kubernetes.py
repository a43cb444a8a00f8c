# SPDX-License-Identifier: BSD-3-Clause
"""As much of the Kubernetes API as a login asks for: TokenReview.

It believes every service account token; what the token says about itself
is checked by OpenBao.
"""

import base64
import http.server
import json
import threading


class Api(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reviews = 0

    @property
    def address(self):
        return "http://127.0.0.1:%d" % self.server_port

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever,
                                       kwargs={"poll_interval": 0.05})
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.shutdown()
        self.thread.join(30)
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.reviews += 1
        review = json.loads(
            self.rfile.read(int(self.headers["Content-Length"])))
        audiences = review["spec"].get("audiences", [])
        claims = review["spec"]["token"].split(".")[1]
        subject = json.loads(base64.urlsafe_b64decode(
            claims + "=" * (-len(claims) % 4)))["sub"]
        body = json.dumps({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "status": {"authenticated": True, "audiences": audiences,
                       "user": {"username": subject, "uid": "1"}}}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass
