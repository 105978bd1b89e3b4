#!/usr/bin/env python3
"""Writes the requests that a stock `tc` sends for the commands in commands.txt, as strace sees them.

Run on any Linux, as root or not: the kernel may refuse, the request is what counts. The devices that are named must exist; `lo`
always does.

    ./capture.py < commands.txt > requests.txt
"""
import re, subprocess, sys, tempfile

version = subprocess.run(["tc", "-V"], capture_output=True, text=True).stdout.strip()
print(f"# {version}; captured with strace -e trace=sendmsg")
for line in sys.stdin:
    line = line.strip()
    if not line or line.startswith("#"):
        continue
    with tempfile.NamedTemporaryFile("r") as out:
        subprocess.run(["strace", "-f", "-o", out.name, "-e", "trace=sendmsg", "-e", "write=all", "-s", "0", "tc"]
                       + line.split(), capture_output=True)
        text = out.read()
    requests, now = [], b""
    for row in text.splitlines():
        m = re.match(r" \| ([0-9a-f]{5})  ((?:[0-9a-f]{2} {1,2})+)", row)
        if m:
            # A request may be sent in parts.
            if int(m[1], 16) == 0 and now and len(now) >= int.from_bytes(now[:4], "little"):
                requests.append(now)
                now = b""
            now += bytes.fromhex(m[2].replace(" ", ""))
    if now:
        requests.append(now)
    # Requests about filters, qdiscs and actions; tc asks for the interface before.
    requests = [r for r in requests if int.from_bytes(r[4:6], "little") in (36, 37, 44, 45, 46, 48, 49, 50)]
    print(f"tc {line}")
    for r in requests:
        print(r.hex())
