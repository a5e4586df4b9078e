"""Called by python.sh with the port of http_echo."""
import http.client
import socket
import sys
import threading

port = int(sys.argv[1])
passed = failed = 0
lock = threading.Lock()


def check(what, got, want):
    global passed, failed
    with lock:
        if got == want:
            passed += 1
        else:
            failed += 1
            print("%s: got %r, want %r" % (what, got, want))


def connect():
    return http.client.HTTPConnection("127.0.0.1", port, timeout=20)


def keep_alive():
    c = connect()
    for n in (0, 1, 100, 70000):
        c.request("POST", "/n", body=b"x" * n)
        r = c.getresponse()
        check("status", r.status, 200)
        check("body of %d" % n, len(r.read()), n)
    c.close()


def chunked():
    c = connect()
    c.request("PUT", "/c", body=iter([b"one", b"two", b"t" * 5000]), encode_chunked=True)
    check("chunked", c.getresponse().read(), b"onetwo" + b"t" * 5000)
    c.close()


def pipelined():
    s = socket.create_connection(("127.0.0.1", port), 20)
    want = b"".join(b"%04d" % i for i in range(200))
    s.sendall(b"".join(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n%s\r\n%04d"
                       % (b"Connection: close\r\n" if i == 199 else b"", i) for i in range(200)))
    got, f = b"", s.makefile("rb")
    while True:
        line = f.readline()
        if not line:
            break
        check("status line", line.split(b" ")[1], b"200")
        length = 0
        while line not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
            line = f.readline()
        got += f.read(length)
    check("200 pipelined, in order", got, want)
    s.close()


def half_closed():
    s = socket.create_connection(("127.0.0.1", port), 20)
    s.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
    s.shutdown(socket.SHUT_WR)
    answer = b""
    while True:
        part = s.recv(4096)
        if not part:
            break
        answer += part
    check("answer after half close", answer.endswith(b"\r\n\r\nhi"), True)
    s.close()


keep_alive()
chunked()
pipelined()
half_closed()
threads = [threading.Thread(target=keep_alive) for _ in range(30)]
for t in threads:
    t.start()
for t in threads:
    t.join()
check("everyone done", all(not t.is_alive() for t in threads), True)
print("%d passed, %d failed" % (passed, failed))
sys.exit(1 if failed else 0)
