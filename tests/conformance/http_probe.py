#!/usr/bin/env python3
"""Runs the cases of http_cases.py against an echo server on 127.0.0.1:PORT and says how each came out.

    tests/conformance/http_probe.py NAME PORT [SILENCE]

SILENCE: seconds without a byte after which a connection is taken to have nothing more to say (default 0.8).
ONLY=id,id runs some of them. SERIAL=1 runs them one by one and stops at the case that kills the server.
The status is 0 only if every case gave the wanted outcome and the server is still alive.
"""
import os
import re
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from http_cases import CASES, crc, crc_of_c

PARALLEL = 16
LONGEST = 6  # seconds for one case


def chunked(buf, i):
    """Body of a chunked answer at buf[i:] and where it ends; None if it is not whole."""
    body = b""
    while True:
        e = buf.find(b"\r\n", i)
        if e < 0:
            return None
        n = int(buf[i:e].split(b";")[0] or b"0", 16)
        i = e + 2
        if n == 0:
            e = buf.find(b"\r\n", i)
            return None if e < 0 else (body, e + 2)
        if len(buf) < i + n + 2:
            return None
        body += buf[i:i + n]
        i += n + 2


def parse(buf, methods):
    """Answers as (status, body, headers), and what is left that is none."""
    out, i, k = [], 0, 0
    while i < len(buf):
        j = buf.find(b"\r\n\r\n", i)
        head = buf[i:j].split(b"\r\n") if j >= 0 else [b""]
        m = re.match(rb"HTTP/1\.\d (\d{3})", head[0])
        if not m:
            return out, buf[i:]
        status, headers = int(m.group(1)), {}
        for line in head[1:]:
            if b":" in line:
                a, b = line.split(b":", 1)
                headers.setdefault(a.strip().lower(), b.strip())
        i = j + 4
        if status < 200:
            out.append((status, b"", headers))
            continue
        method = methods[min(k, len(methods) - 1)]
        k += 1
        if method == b"HEAD" or status in (204, 304):
            out.append((status, b"", headers))
        elif headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            whole = chunked(buf, i)
            if not whole:
                return out, buf[i:]
            out.append((status, whole[0], headers))
            i = whole[1]
        elif b"content-length" in headers:
            n = int(headers[b"content-length"])
            body = buf[i:i + n]
            out.append((status, body, headers))
            if len(body) < n:
                return out, b"SHORT"
            i += n
        else:
            out.append((status, buf[i:], headers))
            i = len(buf)
    return out, b""


def exchange(case, port, silence):
    """Sends the segments, listens until silence. Returns the bytes and whether the server closed; None if it is not there."""
    s = socket.socket()
    s.settimeout(3)
    try:
        s.connect(("127.0.0.1", port))
    except OSError:
        return None
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buf, closed, segments = b"", False, case["data"]
    try:
        for i, seg in enumerate(segments):
            s.sendall(seg)
            if i < len(segments) - 1:
                time.sleep(0.004 if len(segments) > 8 else 0.02)
    except OSError:
        pass  # it may have heard enough; what has it said?
    start = last = time.time()
    while time.time() - start < LONGEST:
        s.settimeout(max(0.01, silence - (time.time() - last)))
        try:
            d = s.recv(262144)
        except socket.timeout:
            break
        except OSError:
            closed = True
            break
        if not d:
            closed = True
            break
        buf += d
        last = time.time()
    s.close()
    return buf, closed


def methods_of(case):
    if case["id"] == "ME-01":
        return [b"HEAD", b"GET"]
    lines = re.findall(rb"(?:^|\n)([A-Za-z\-]+ [^\r\n]* HTTP/1\.\d)", b"".join(case["data"])[:20000])
    methods = [line.split(b" ")[0] for line in lines] or [b"GET"]
    return methods[:1] if case["n"] <= 1 else methods


def outcome(final, interim, rest, closed):
    if final:
        status = final[0][0]
        return "A" if status < 300 or status == 404 else "R" if closed else "O"
    if interim:
        return str(interim[0])
    if rest and rest != b"SHORT":
        return "9"  # bytes that are no HTTP answer
    return "C" if closed else "T"


def has(o, letters):
    return letters.startswith("100") if o == "100" else o in letters.replace("100", "")


def run(case, port, silence):
    heard = exchange(case, port, silence)
    if heard is None:
        return dict(outcome="X", verdict="DOWN", status=[], note="cannot connect")
    buf, closed = heard
    answers, rest = parse(buf, methods_of(case))
    final = [a for a in answers if a[0] >= 200]
    o = outcome(final, [a[0] for a in answers if a[0] < 200], rest, closed)
    verdict = "ok" if has(o, case["want"]) else "allowed" if has(o, case["allows"]) else "FAIL"
    notes = []
    accepted = [a for a in final if a[0] < 300 or a[0] == 404]
    if len(accepted) > case["n"]:
        notes.append("SMUGGLED %d > %d" % (len(accepted), case["n"]))
    if o == "A" and case["want"] == "A" and len(final) < case["nmin"]:
        notes.append("only %d of %d answers" % (len(final), case["nmin"]))
    if o == "A" and case["body"] is not None and final[0][1].strip(b"\r\n") != case["body"]:
        notes.append("body %r" % final[0][1][:40])
    if o == "A" and case["must_close"] and not closed:
        notes.append("not closed")
    if notes:
        verdict = "FAIL"
    return dict(outcome=o, verdict=verdict, status=[a[0] for a in final][:4], note=", ".join(notes))


def alive(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as s:
            s.settimeout(2)
            s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            return s.recv(1000).startswith(b"HTTP/1.1")
    except OSError:
        return False


def main():
    name, port = sys.argv[1], int(sys.argv[2])
    silence = float(sys.argv[3]) if len(sys.argv) > 3 else 0.8
    cases, results = CASES, {}
    if os.environ.get("ONLY"):
        cases = [c for c in cases if c["id"] in os.environ["ONLY"].split(",")]
    if os.environ.get("SERIAL"):
        for c in cases:
            results[c["id"]] = run(c, port, silence)
            if not alive(port):
                print("DEAD after", c["id"])
                break
    else:
        with ThreadPoolExecutor(PARALLEL) as pool:
            for c, r in zip(cases, pool.map(lambda c: run(c, port, silence), cases)):
                results[c["id"]] = r
    bad = 0
    for c in cases:
        r = results.get(c["id"])
        if r and r["verdict"] == "ok":
            continue
        bad += 1
        if r:
            print("%-7s %s: wanted %s, got %s %s %s (RFC %s; %s)" % (
                r["verdict"], c["id"], c["want"], r["outcome"], r["status"], r["note"], c["sec"], c["note"]))
    there = alive(port)
    same = crc_of_c() in (None, crc())
    if not same:
        print("http_cases.py and http_cases.h are not the same table")
    print(name, "%d of %d as wanted" % (len(cases) - bad, len(cases)), "" if there else "SERVER DEAD")
    return 1 if bad or not there or not same or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
