"""RFC 3501: an ordinary IMAP client. Prints every object of a server as one line of JSON: mailbox, flags, head, body.

Arguments: the port, the password, and for TLS the file with the authority's certificate.
"""
import imaplib
import json
import ssl
import sys

port, password = int(sys.argv[1]), sys.argv[2]
if len(sys.argv) > 3:
    context = ssl.create_default_context(cafile=sys.argv[3])
    client = imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=context)
else:
    client = imaplib.IMAP4("127.0.0.1", port)
client.login("cpm", password)
for line in client.list()[1]:
    mailbox = line.decode().split(' "/" ', 1)[1].strip('"')
    status, count = client.select(f'"{mailbox}"', readonly=True)
    if status != "OK" or count == [b"0"]:
        continue
    for part in client.uid("FETCH", "1:*", "(FLAGS BODY.PEEK[])")[1]:
        if isinstance(part, tuple):
            head, _, body = part[1].decode("latin-1").partition("\r\n\r\n")
            print(json.dumps({"mailbox": mailbox, "flags": part[0].decode(), "head": head + "\r\n", "body": body}))
client.logout()
