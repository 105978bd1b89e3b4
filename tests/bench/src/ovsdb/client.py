"""Transactions against an OVSDB server on a unix socket: SOCKET COUNT WINDOW. Prints the seconds that they took, and the
processor time that the client itself needed."""
import json
import socket
import sys
import time

path, count, window = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(30)
sock.connect(path)
decoder = json.JSONDecoder()
text = ""


def send(method, params, ident):
    message = {"method": method, "params": params, "id": ident}
    sock.sendall(json.dumps(message).encode())


def receive():
    global text
    while True:
        text = text.lstrip()
        try:
            message, end = decoder.raw_decode(text)
        except ValueError:
            chunk = sock.recv(1 << 16)
            if not chunk:
                sys.exit("the server closed the connection")
            text += chunk.decode()
            continue
        text = text[end:]
        if message.get("method") == "echo":
            reply = {"result": message["params"], "error": None, "id": message["id"]}
            sock.sendall(json.dumps(reply).encode())
        elif message.get("error") or any("error" in r for r in message["result"]):
            sys.exit("a transaction failed: %s" % message)
        else:
            return message["result"]


named = [["name", "==", "br0"]]
send("transact", ["Open_vSwitch", {"op": "select", "table": "Bridge", "where": named, "columns": ["_uuid"]}], 0)
where = [["_uuid", "==", receive()[0]["rows"][0]["_uuid"]]]

begin, own = time.perf_counter(), time.process_time()
sent = done = 0
while done < count:
    while sent < count and sent - done < window:
        row = {"external_ids": ["map", [["n", str(sent)]]]}
        send("transact", ["Open_vSwitch", {"op": "update", "table": "Bridge", "where": where, "row": row}], sent)
        sent += 1
    receive()
    done += 1
print(time.perf_counter() - begin, time.process_time() - own)
