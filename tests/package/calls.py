#!/usr/bin/env python3
"""Calls through the proxy, one after the other over UDP and over one TCP connection, until standard input ends.

    calls.py HOST:PORT-UDP HOST:PORT-TCP    prints how many; ends with 1 at the first that fails

Nothing is sent twice: a message that is lost fails its call after ten seconds.
"""
import socket
import sys
import threading

SDP = """v=0
o=- 1 1 IN IP4 127.0.0.1
s=-
c=IN IP4 127.0.0.1
t=0 0
m=message 9 TCP/MSRP *
a=accept-types:message/cpim text/plain
a=path:msrp://127.0.0.1:9/{id};tcp
a=setup:{setup}
a=msrp-cema
a=sendrecv
""".replace("\n", "\r\n")
SERVICE = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session"
TAG = '+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session"'
stop = threading.Event()
failures = []


def fields(message, name):
    return [line.split(":", 1)[1].strip() for line in message.split("\r\n\r\n")[0].split("\r\n")[1:]
            if line.lower().startswith(name.lower() + ":")]


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


class Udp:
    def __init__(self, to):
        self.to, self.socket = to, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(10)
        self.name, self.me = "UDP", "%s:%d" % self.socket.getsockname()

    def send(self, text):
        self.socket.sendto(text.encode(), self.to)

    def receive(self):
        return self.socket.recv(65536).decode()


class Tcp:
    def __init__(self, to):
        self.socket, self.held = socket.create_connection(to, 10), b""
        self.name, self.me = "TCP", "%s:%d" % self.socket.getsockname()

    def send(self, text):
        self.socket.sendall(text.encode())

    def receive(self):
        while True:
            head, blank, rest = self.held.partition(b"\r\n\r\n")
            if blank:
                length = int((fields((head + blank).decode(), "Content-Length") or ["0"])[0])
                if len(rest) >= length:
                    self.held = rest[length:]
                    return (head + blank + rest[:length]).decode()
            octets = self.socket.recv(65536)
            if not octets:
                raise OSError("the proxy closed the connection")
            self.held += octets


def answer(server):
    """The called side: 200 to everything, until the callers are done."""
    server.settimeout(0.2)
    host, port = server.getsockname()
    while not done.is_set():
        try:
            octets, peer = server.recvfrom(65536)
        except TimeoutError:
            continue
        request = octets.decode()
        if request.startswith(("ACK", "SIP/2.0")):
            continue
        to = fields(request, "To")[0]
        lines = ["SIP/2.0 200 OK"] + [f"Via: {via}" for via in fields(request, "Via")]
        lines += [f"Record-Route: {route}" for route in fields(request, "Record-Route")]
        lines += [f"From: {fields(request, 'From')[0]}", "To: " + (to if ";tag=" in to else to + ";tag=called")]
        lines += [f"Call-ID: {fields(request, 'Call-ID')[0]}", f"CSeq: {fields(request, 'CSeq')[0]}"]
        body = SDP.format(id="called", setup="active") if request.startswith("INVITE") else ""
        if body:
            lines += [f"Contact: <sip:bob@{host}:{port}>", "Supported: timer", "Content-Type: application/sdp"]
        lines += [f"Content-Length: {len(body)}", "", body]
        server.sendto("\r\n".join(lines).encode(), peer)


def call(flow, number, called):
    key = f"{flow.name}{number}"
    uri = f"sip:bob@{called}"

    def request(method, target, cseq, to, more, body=""):
        flow.send("\r\n".join([
            f"{method} {target} SIP/2.0", f"Via: SIP/2.0/{flow.name} {flow.me};branch=z9hG4bK{key}{method};rport",
            "Max-Forwards: 70", f"From: <sip:alice@example.net>;tag={key}", f"To: {to}", f"Call-ID: {key}",
            f"CSeq: {cseq} {method}", *more, f"Content-Length: {len(body)}", "", body]))

    def final(method):
        while True:
            message = flow.receive()
            of_us = fields(message, "Call-ID") == [key] and fields(message, "CSeq")[0].endswith(method)
            status = int(message.split(" ", 2)[1]) if message.startswith("SIP/2.0") else 0
            if of_us and status >= 200:
                if status != 200:
                    raise OSError(f"{method} got {message.splitlines()[0]}")
                return message

    contact = f"Contact: <sip:alice@{flow.me};transport={flow.name.lower()}>"
    request("INVITE", uri, 1, f"<{uri}>", [
        f"{contact};{TAG}", f"Accept-Contact: *;{TAG}", f"P-Preferred-Service: {SERVICE}",
        "P-Asserted-Identity: <sip:alice@example.net>", "P-Served-User: <sip:alice@example.net>;sescase=orig",
        f"Conversation-ID: {key}", f"Contribution-ID: {key}", "Supported: timer", "Content-Type: application/sdp"],
        SDP.format(id=key, setup="actpass"))
    ok = final("INVITE")
    target = fields(ok, "Contact")[0].split("<", 1)[1].split(">", 1)[0]
    routes = [f"Route: {route}" for route in reversed(fields(ok, "Record-Route"))]
    request("ACK", target, 1, fields(ok, "To")[0], routes)
    request("BYE", target, 2, fields(ok, "To")[0], routes)
    final("BYE")


def calls(flow, called, counts):
    while not stop.is_set():
        try:
            call(flow, counts[flow.name], called)
        except (OSError, IndexError, ValueError) as error:
            failures.append(f"call {counts[flow.name]} over {flow.name}: {error}")
            return
        counts[flow.name] += 1


done = threading.Event()
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
called = "%s:%d" % server.getsockname()
counts = {"UDP": 0, "TCP": 0}
flows = [Udp(address(sys.argv[1])), Tcp(address(sys.argv[2]))]
threads = [threading.Thread(target=calls, args=(flow, called, counts)) for flow in flows]
answering = threading.Thread(target=answer, args=(server,))
for thread in [answering, *threads]:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
done.set()
answering.join()
print(f"{counts['UDP']} calls over UDP and {counts['TCP']} over one TCP connection, {len(failures)} failed")
for failure in failures:
    print(failure)
sys.exit(1 if failures or not all(counts.values()) else 0)
