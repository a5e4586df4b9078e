/*  http_cases.h -- what an HTTP/1.1 server must make of 229 inputs, most of them wrong in some way,
    after RFC 9110 and 9112.

    The server is an echo: any method on any path is answered 200 with the body of the request.
    Used by tests/test_http_cases.c (the parser alone) and tests/net_http_cases.c (a server, over
    sockets). tests/conformance/http_cases.py holds the same cases for servers of any make, and
    HTTP_CASES_CRC ties the two together: who changes one changes the other, and then the number.

    Outcome letters, of the first final answer:
        A  accepted (2xx, or 404)               C  closed without an answer
        R  refused (>= 400) and closed          T  no answer, still open
        O  refused (>= 400), left open          "100"  no final answer yet, but 100 Continue
*/
#ifndef HTTP_CASES_H
#define HTTP_CASES_H
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HTTP_CASE_PIECES = 8, HTTP_CASE_SEGMENTS = 40 };

typedef struct http_piece {
    const char* bytes;   // NULL after the last piece
    size_t      len;
    unsigned    times;   // more than once: a '#' becomes the number of the repetition, from 0
    int         segment; // 0: sent with what came before it, 1: after it, 2: byte by byte
} http_piece;

typedef struct http_case {
    const char* id;
    const char* want;       // outcomes that are right for us
    const char* allows;     // outcomes that the RFCs let pass
    const char* section;
    const char* note;
    int         most;       // accepted messages; one more, and a hidden request has been executed
    int         least;      // final answers, if it is accepted and should be
    const char* body;       // of the first message; NULL: not looked at
    int         must_close; // after accepting it
    http_piece  pieces[HTTP_CASE_PIECES];
} http_case;

#define B(text)        { text, sizeof(text) - 1, 1, 0 }
#define THEN(text)     { text, sizeof(text) - 1, 1, 1 }
#define EACH(text)     { text, sizeof(text) - 1, 1, 2 }
#define N(times, text) { text, sizeof(text) - 1, times, 0 }
#define HOST     "Host: a\r\n"
#define GET      "GET / HTTP/1.1\r\n" HOST
#define POST     "POST / HTTP/1.1\r\n" HOST
#define CHUNKED  "Transfer-Encoding: chunked\r\n"
#define LAST     "0\r\n\r\n"
#define SMUGGLED "GET /smuggled HTTP/1.1\r\n" HOST "\r\n"

// id, want, allows, section, note, most, least, body, must_close, pieces
static const http_case http_cases[] = {
    // request line
    { "RL-01", "A", "A", "9112 2.2", "one leading CRLF SHOULD be ignored",
      1, 1, NULL, 0, { B("\r\n" GET "\r\n") } },
    { "RL-02", "A", "ARC", "9112 2.2", "several leading CRLF (at least one)",
      1, 1, NULL, 0, { B("\r\n\r\n\r\n" GET "\r\n") } },
    { "RL-03", "A", "ARO", "9110 9.1",
      "lowercase method is a different method (501/405 or app decides)",
      1, 1, NULL, 0, { B("get / HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-04", "R", "RCA", "9112 3", "double SP",
      1, 1, NULL, 0, { B("GET  / HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-05", "R", "RCA", "9112 3", "double SP before version",
      1, 1, NULL, 0, { B("GET /  HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-06", "R", "RCA", "9112 3", "HTAB separators",
      1, 1, NULL, 0, { B("GET\t/\tHTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-07", "R", "RC", "9112 3.2", "SP in target",
      1, 1, NULL, 0, { B("GET /a b HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-08", "R", "RC", "9112 2.3", "HTTP-name is case-sensitive",
      1, 1, NULL, 0, { B("GET / http/1.1\r\n" HOST "\r\n") } },
    { "RL-09", "R", "RCA", "9112 3", "trailing SP",
      1, 1, NULL, 0, { B("GET / HTTP/1.1 \r\n" HOST "\r\n") } },
    { "RL-10", "R", "RC", "9112 2.3", "two-digit minor",
      1, 1, NULL, 0, { B("GET / HTTP/1.32\r\n" HOST "\r\n") } },
    { "RL-11", "A", "A", "9110 2.5", "higher minor SHOULD be processed as 1.1",
      1, 1, NULL, 0, { B("GET / HTTP/1.2\r\n" HOST "\r\n") } },
    { "RL-12", "R", "RC", "9110 15.6.6", "505",
      1, 1, NULL, 0, { B("GET / HTTP/2.0\r\n" HOST "\r\n") } },
    { "RL-13", "R", "RC", "9112 2.3", "0.9 with version",
      1, 1, NULL, 0, { B("GET / HTTP/0.9\r\n" HOST "\r\n") } },
    { "RL-14", "R", "RC", "9112 App A", "HTTP/0.9 simple request",
      1, 1, NULL, 0, { B("GET /\r\n\r\n") } },
    { "RL-15", "R", "RCOA", "9112 3.2", "target is none of the four forms",
      1, 1, NULL, 0, { B("GET ! HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-16", "R", "RC", "9112 3.2", "NUL in target",
      1, 1, NULL, 0, { B("GET /\x00x HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-17", "R", "RCOA", "9112 3.2 / 3986", "DEL in target",
      1, 1, NULL, 0, { B("GET /\x7fx HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-18", "RA", "RCOA", "9112 3.2 / 3986", "raw 8-bit in target",
      1, 1, NULL, 0, { B("GET /\xff\xfe HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-19", "AR", "ARO", "3986 2.1", "bad pct-encoding: 400 recommended at decode time",
      1, 1, NULL, 0, { B("GET /%zz HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-20", "AR", "ARO", "3986", "encoded NUL must never reach the file system",
      1, 1, NULL, 0, { B("GET /%00 HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-21", "R", "RC", "9110 5.6.2", "non-token method",
      1, 1, NULL, 0, { B("G=\":<>(e),[T];?\" / HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-22", "AO", "AORC", "9110 9.1", "unknown token method: 501 or handler",
      1, 1, NULL, 0, { B("SLUDGE / HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-23", "R", "ARC", "9112 2.2", "bare LF ends request line",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\n" HOST "\r\n") } },
    { "RL-24", "R", "RC", "9112 2.2", "bare CR ends request line",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\r" HOST "\r\n") } },
    { "RL-25", "R", "RC", "9112 3", "LF as SP",
      1, 1, NULL, 0, { B("GET /\nHTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-26", "R", "RCA", "9112 3", "leading SP",
      1, 1, NULL, 0, { B(" " GET "\r\n") } },
    { "RL-27", "R", "RCA", "9112 2.2", "whitespace-only leading line",
      1, 1, NULL, 0, { B(" \r\n" GET "\r\n") } },
    { "RL-28", "A", "AO", "9112 3", "8000-octet request line RECOMMENDED minimum",
      1, 1, NULL, 0, { B("GET /"), N(7900, "a"), B(" HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-29", "R", "RC", "9112 3", "URI too long MUST 414",
      1, 1, NULL, 0, { B("GET /"), N(200000, "a"), B(" HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-30", "RAO", "RAOC", "9112 3", "long method SHOULD 501",
      1, 1, NULL, 0, { N(300, "A"), B(" / HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-31", "RC", "RC", "9112 2.2", "TLS hello on plain port",
      1, 1, NULL, 0, { B("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), N(40, "\x00") } },
    { "RL-32", "R", "RC", "9113 3.4", "h2 preface",
      1, 1, NULL, 0, { B("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") } },
    { "RL-33", "R", "RC", "9112 2.3", "NUL after version",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\x00\r\n" HOST "\r\n") } },
    { "RL-34", "R", "RC", "9112 2.3", "version leading zero",
      1, 1, NULL, 0, { B("GET / HTTP/01.1\r\n" HOST "\r\n") } },
    { "RL-35", "R", "RC", "9112 2.3", "comma version",
      1, 1, NULL, 0, { B("GET / HTTP/1,1\r\n" HOST "\r\n") } },
    { "RL-36", "R", "RCOA", "9112 3.2 / 3986 3.5", "fragment in request-target",
      1, 1, NULL, 0, { B("GET /a#frag HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-37", "RA", "RCOA", "3986 2", "characters no URI may contain",
      1, 1, NULL, 0, { B("GET /a\"b<c>^`{|} HTTP/1.1\r\n" HOST "\r\n") } },
    { "RL-38", "RA", "RCOA", "3986 2", "backslash in target (never a separator for static files)",
      1, 1, NULL, 0, { B("GET /a\\..\\b HTTP/1.1\r\n" HOST "\r\n") } },
    // forms of the target, and Host
    { "HO-01", "A", "A", "9112 3.2.2", "absolute-form MUST be accepted",
      1, 1, NULL, 0, { B("GET http://a/x HTTP/1.1\r\n" HOST "\r\n") } },
    { "HO-02", "A", "AR", "9112 3.2.2", "absolute-form: Host ignored, target host wins",
      1, 1, NULL, 0, { B("GET http://b/x HTTP/1.1\r\n" HOST "\r\n") } },
    { "HO-03", "A", "A", "9112 3.2.2", "absolute-form with empty path",
      1, 1, NULL, 0, { B("GET http://a HTTP/1.1\r\n" HOST "\r\n") } },
    { "HO-04", "A", "A", "9112 3.2.2", "absolute-form, no path, query",
      1, 1, NULL, 0, { B("GET http://a?x=1 HTTP/1.1\r\n" HOST "\r\n") } },
    { "HO-05", "R", "R", "9112 3.2", "absolute-form still needs Host in 1.1",
      1, 1, NULL, 0, { B("GET http://a/x HTTP/1.1\r\n\r\n") } },
    { "HO-06", "A", "AO", "9112 3.2.4", "asterisk-form",
      1, 1, NULL, 0, { B("OPTIONS * HTTP/1.1\r\n" HOST "\r\n") } },
    { "HO-07", "RO", "ROC", "9112 3.2.4", "asterisk only for OPTIONS",
      1, 1, NULL, 0, { B("GET * HTTP/1.1\r\n" HOST "\r\n") } },
    { "HO-08", "RO", "RO", "9110 9.3.6", "authority-form CONNECT, origin server: 405/501",
      1, 1, NULL, 0, { B("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n") } },
    { "HO-09", "R", "RCO", "9112 3.2.3", "authority-form only for CONNECT",
      1, 1, NULL, 0, { B("GET a:80 HTTP/1.1\r\n" HOST "\r\n") } },
    { "HO-10", "R", "AR", "9112 3.2 / 9110 4.2.1",
      "empty Host: an http URI with an empty host MUST be rejected",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\r\nHost: \r\n\r\n") } },
    { "HO-11", "R", "R", "9112 3.2", "SP inside Host value",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\r\nHost: a b\r\n\r\n") } },
    { "HO-12", "R", "R", "9112 3.2", "bad port",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n") } },
    { "HO-13", "R", "R", "9112 3.2", "slash in Host",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\r\nHost: a/../b\r\n\r\n") } },
    { "HO-14", "R", "R", "9112 3.2", "userinfo in Host",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n") } },
    { "HO-15", "A", "A", "3986 3.2.2", "IPv6 literal Host",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n") } },
    { "HO-16", "R", "R", "9112 3.2", "unclosed bracket",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n") } },
    { "HO-17", "R", "R", "9112 3.2", "comma list in Host",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n") } },
    { "HO-18", "R", "R", "9112 3.2", "duplicate Host, same value",
      1, 1, NULL, 0, { B(GET "host: a\r\n\r\n") } },
    { "HO-19", "A", "A", "9112 3.2", "HTTP/1.0 without Host is fine",
      1, 1, NULL, 0, { B("GET / HTTP/1.0\r\n\r\n") } },
    { "HO-20", "R", "R", "9112 3.2", "two Host in 1.0 ('any request message')",
      1, 1, NULL, 0, { B("GET / HTTP/1.0\r\n" HOST "Host: b\r\n\r\n") } },
    { "HO-21", "R", "R", "9110 5.5", "NUL in Host",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\r\nHost: a\x00" "b\r\n\r\n") } },
    { "HO-22", "RA", "RAO", "9110 4.2.4", "userinfo in http URI SHOULD be an error",
      1, 1, NULL, 0, { B("GET http://u:p@a/ HTTP/1.1\r\n" HOST "\r\n") } },
    { "HO-23", "AR", "ARO", "9112 3.2.1", "path starting // is origin-form",
      1, 1, NULL, 0, { B("GET //evil/x HTTP/1.1\r\n" HOST "\r\n") } },
    { "HO-24", "R", "R", "9112 3.2", "obs-text in Host",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\r\nHost: \xff" "a\xff\r\n\r\n") } },
    // header fields
    { "HD-01", "R", "R", "9112 5.1", "SP before colon MUST 400",
      1, 1, NULL, 0, { B(GET "X : 1\r\n\r\n") } },
    { "HD-02", "R", "R", "9112 5.1", "HTAB before colon MUST 400",
      1, 1, NULL, 0, { B(GET "X\t: 1\r\n\r\n") } },
    { "HD-03", "R", "RA", "9112 2.2", "SP before first field: reject or drop the line",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\r\n X: 1\r\n" HOST "\r\n") } },
    { "HD-04", "R", "RA", "9112 2.2", "HTAB before first field",
      2, 1, NULL, 0, { B("GET / HTTP/1.1\r\n\tContent-Length: 1\r\n" HOST "\r\nX") } },
    { "HD-05", "R", "RA", "9112 5.2", "obs-fold: 400 or replace by SP",
      1, 1, NULL, 0, { B(GET "X: a\r\n b\r\n\r\n") } },
    { "HD-06", "R", "RA", "9112 5.2", "obs-fold HTAB",
      1, 1, NULL, 0, { B(GET "X: a\r\n\tb\r\n\r\n") } },
    { "HD-07", "R", "RA", "9112 5.2", "obs-fold blank line",
      1, 1, NULL, 0, { B(GET "X:\r\n \r\n\r\n") } },
    { "HD-08", "R", "RC", "9110 5.1", "empty name",
      1, 1, NULL, 0, { B(GET ": v\r\n\r\n") } },
    { "HD-09", "R", "RC", "9112 5", "no colon",
      1, 1, NULL, 0, { B(GET "NoColon\r\n\r\n") } },
    { "HD-10", "R", "RA", "9110 5.5", "NUL in value: reject or SP",
      1, 1, NULL, 0, { B(GET "X: a\x00" "b\r\n\r\n") } },
    { "HD-11", "R", "RA", "9110 5.5 / 9112 2.2", "bare CR in value: reject or SP",
      1, 1, NULL, 0, { B(GET "X: a\rb\r\n\r\n") } },
    { "HD-12", "R", "RA", "9112 2.2", "bare LF as line end (MAY accept)",
      1, 1, NULL, 0, { B(GET "X: a\nY: b\r\n\r\n") } },
    { "HD-13", "R", "RA", "9112 2.2", "all-LF request (MAY accept)",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\nHost: a\nX: 1\n\n") } },
    { "HD-14", "R", "RC", "9110 5.1", "NUL in name",
      1, 1, NULL, 0, { B(GET "X\x00Y: 1\r\n\r\n") } },
    { "HD-15", "R", "RC", "9110 5.1", "8-bit in name",
      1, 1, NULL, 0, { B(GET "X\xe9: 1\r\n\r\n") } },
    { "HD-16", "R", "RC", "9110 5.1", "delimiter in name",
      1, 1, NULL, 0, { B(GET "X(Y: 1\r\n\r\n") } },
    { "HD-17", "A", "A", "9110 5.6.2", "every tchar is legal",
      1, 1, NULL, 0, { B(GET "!#$%&'*+-.^_`|~09azAZ: v\r\n\r\n") } },
    { "HD-18", "A", "AR", "9110 5.5", "obs-text value is opaque data",
      1, 1, NULL, 0, { B(GET "X: caf\xe9\r\n\r\n") } },
    { "HD-19", "A", "A", "9110 5.5", "HTAB inside value",
      1, 1, NULL, 0, { B(GET "X: a\tb\r\n\r\n") } },
    { "HD-20", "R", "RA", "9110 5.5", "DEL in value",
      1, 1, NULL, 0, { B(GET "X: a\x7f" "b\r\n\r\n") } },
    { "HD-21", "R", "RA", "9110 5.5", "ESC in value",
      1, 1, NULL, 0, { B(GET "X: a\x1b" "b\r\n\r\n") } },
    { "HD-22", "A", "A", "9112 5.1", "OWS trimmed both ends",
      1, 1, NULL, 0, { B(GET "X:\t  v  \t\r\n\r\n") } },
    { "HD-23", "A", "A", "9110 5.3", "repeated field",
      1, 1, NULL, 0, { B(GET "X: 1\r\nX: 2\r\n\r\n") } },
    { "HD-24", "A", "AO", "9110 5.4", "64 fields",
      1, 1, NULL, 0, { B(GET), N(64, "X-#: v\r\n"), B("\r\n") } },
    { "HD-25", "R", "RC", "9110 5.4", "20000 fields MUST 4xx (431)",
      1, 1, NULL, 0, { B(GET), N(20000, "X-#: v\r\n"), B("\r\n") } },
    { "HD-26", "A", "AOR", "9110 5.4", "6000-byte value",
      1, 1, NULL, 0, { B(GET "X: "), N(6000, "a"), B("\r\n\r\n") } },
    { "HD-27", "R", "RC", "9110 5.4", "300 KB value MUST 4xx (431)",
      1, 1, NULL, 0, { B(GET "X: "), N(300000, "a"), B("\r\n\r\n") } },
    { "HD-28", "R", "RC", "9112 2.2", "\\r\\n\\rX must not end the head",
      1, 1, NULL, 0, { B(GET "\rZ" SMUGGLED) } },
    { "HD-29", "R", "RA", "9112 2.2", "CRLF then bare LF ends head (MAY accept)",
      1, 1, NULL, 0, { B(GET "\n") } },
    { "HD-30", "R", "RC", "9112 5", "name split across lines",
      1, 1, NULL, 0, { B(GET "Transfer-\r\nEncoding: chunked\r\n\r\n") } },
    { "HD-31", "A", "AR", "9112 5.1", "0x85/0xA0 are not OWS",
      1, 1, NULL, 0, { B(GET "X: a\x85\r\nY: \xa0\r\n\r\n") } },
    // Content-Length
    { "CL-01", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '+5': plus sign",
      1, 1, NULL, 0, { B(POST "Content-Length: +5\r\n\r\nhello" SMUGGLED) } },
    { "CL-02", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '-5': minus",
      1, 1, NULL, 0, { B(POST "Content-Length: -5\r\n\r\nhello" SMUGGLED) } },
    { "CL-03", "A", "A", "9112 6.3(5) / 9110 8.6", "CL '5 ': trailing OWS",
      2, 2, NULL, 0, { B(POST "Content-Length: 5 \r\n\r\nhello" SMUGGLED) } },
    { "CL-04", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '0x5': hex",
      1, 1, NULL, 0, { B(POST "Content-Length: 0x5\r\n\r\nhello" SMUGGLED) } },
    { "CL-05", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '5_0': underscore",
      1, 1, NULL, 0, { B(POST "Content-Length: 5_0\r\n\r\nhello" SMUGGLED) } },
    { "CL-06", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '5.0': decimal point",
      1, 1, NULL, 0, { B(POST "Content-Length: 5.0\r\n\r\nhello" SMUGGLED) } },
    { "CL-07", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '5;a': garbage suffix",
      1, 1, NULL, 0, { B(POST "Content-Length: 5;a\r\n\r\nhello" SMUGGLED) } },
    { "CL-08", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '5 5': space separated",
      1, 1, NULL, 0, { B(POST "Content-Length: 5 5\r\n\r\nhello" SMUGGLED) } },
    { "CL-09", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '': empty value",
      1, 1, NULL, 0, { B(POST "Content-Length: \r\n\r\nhello" SMUGGLED) } },
    { "CL-10", "RA", "RA", "9112 6.3(5) / 9110 8.6", "CL '5, 5': same list: reject or collapse",
      2, 1, NULL, 0, { B(POST "Content-Length: 5, 5\r\n\r\nhello" SMUGGLED) } },
    { "CL-11", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '5, 6': differing list",
      1, 1, NULL, 0, { B(POST "Content-Length: 5, 6\r\n\r\nhello" SMUGGLED) } },
    { "CL-12", "R", "RA", "9112 6.3(5) / 9110 8.6", "CL '5,': trailing comma list",
      2, 1, NULL, 0, { B(POST "Content-Length: 5,\r\n\r\nhello" SMUGGLED) } },
    { "CL-13", "A", "A", "9112 6.3(5) / 9110 8.6", "CL '005': leading zeros are 1*DIGIT",
      2, 2, NULL, 0, { B(POST "Content-Length: 005\r\n\r\nhello" SMUGGLED) } },
    { "CL-14", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '18446744073709551621': 2^64+5 wraps to 5",
      1, 1, NULL, 0, { B(POST "Content-Length: 18446744073709551621\r\n\r\nhello" SMUGGLED) } },
    { "CL-15", "RT", "RTO", "9112 6.3(5) / 9110 8.6",
      "CL '4294967301': 2^32+5: must not truncate to 5",
      1, 1, NULL, 0, { B(POST "Content-Length: 4294967301\r\n\r\nhello" SMUGGLED) } },
    { "CL-16", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '99999999999999999999999999': overflow",
      1, 1, NULL, 0, {
        B(POST "Content-Length: 99999999999999999999999999\r\n\r\nhello" SMUGGLED) } },
    { "CL-17", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '\\xef\\xbc\\x95': fullwidth digit",
      1, 1, NULL, 0, { B(POST "Content-Length: \xef\xbc\x95\r\n\r\nhello" SMUGGLED) } },
    { "CL-18", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '5\\x00': NUL suffix",
      1, 1, NULL, 0, { B(POST "Content-Length: 5\x00\r\n\r\nhello" SMUGGLED) } },
    { "CL-19", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '1e1': exponent",
      1, 1, NULL, 0, { B(POST "Content-Length: 1e1\r\n\r\nhello" SMUGGLED) } },
    { "CL-20", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '\\x0b5': VT before",
      1, 1, NULL, 0, { B(POST "Content-Length: \x0b" "5\r\n\r\nhello" SMUGGLED) } },
    { "CL-21", "R", "R", "9112 6.3(5) / 9110 8.6", "CL '0b5': binary prefix",
      1, 1, NULL, 0, { B(POST "Content-Length: 0b5\r\n\r\nhello" SMUGGLED) } },
    { "CL-30", "RA", "RA", "9112 6.3(5)", "duplicate CL, same value",
      1, 1, NULL, 0, { B(POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello") } },
    { "CL-31", "R", "R", "9112 6.3(5)", "duplicate CL, differing",
      1, 1, NULL, 0, { B(POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" SMUGGLED) } },
    { "CL-32", "R", "R", "9112 6.3(5)", "empty CL then CL",
      1, 1, NULL, 0, { B(POST "Content-Length: \r\nContent-Length: 5\r\n\r\nhello" SMUGGLED) } },
    { "CL-33", "R", "R", "9112 5.1", "SP before colon on CL",
      1, 1, NULL, 0, { B(POST "Content-Length : 5\r\n\r\nhello" SMUGGLED) } },
    { "CL-34", "R", "RC", "9112 5", "CL without colon",
      1, 1, NULL, 0, { B(POST "Content-Length 5\r\n\r\nhello" SMUGGLED) } },
    { "CL-35", "A", "A", "9112 6.3(7)",
      "Content_Length is not CL: body length 0, next bytes are a request",
      2, 2, NULL, 0, { B(POST "Content_Length: 5\r\n\r\nGET /x HTTP/1.1\r\n" HOST "\r\n") } },
    { "CL-36", "A", "AR", "9110 9.3.1", "GET with a body must be framed",
      1, 1, "hello", 0, { B(GET "Content-Length: 5\r\n\r\nhello") } },
    { "CL-37", "A", "AR", "9112 6.3(7)", "POST with neither CL nor TE: length 0 (411 allowed)",
      1, 1, NULL, 0, { B(POST "\r\n") } },
    { "CL-38", "A", "A", "9112 6.3", "CL 0 then pipelined",
      2, 2, NULL, 0, { B(POST "Content-Length: 0\r\n\r\n" GET "\r\n") } },
    { "CL-39", "R", "RC", "9110 5.1", "0x85 in name",
      1, 1, NULL, 0, { B(GET "Content-Length\x85: 5\r\n\r\nhello") } },
    { "CL-40", "R", "RA", "9112 5.2", "obs-fold on CL",
      1, 1, NULL, 0, { B(POST "Content-Length: 5\r\n X: y\r\n\r\nhello") } },
    { "CL-41", "RT", "RTO", "9110 15.5.14", "INT64_MAX body: 413 on headers",
      1, 1, NULL, 0, { B(POST "Content-Length: 9223372036854775807\r\n\r\nhello") } },
    { "CL-42", "A", "AR", "9112 6.3 / 9110 5.4",
      "CL is field 31: a full header table must 431, never truncate",
      1, 1, NULL, 0, { B("PATCH / HTTP/1.1\r\n" HOST), N(29, "X#: y\r\n"),
        B("Content-Length: 35\r\n\r\n" SMUGGLED) } },
    { "CL-43", "AR", "AR", "9112 6.3 / 9110 5.4", "CL is field 65",
      1, 1, NULL, 0, { B("PATCH / HTTP/1.1\r\n" HOST), N(63, "X#: y\r\n"),
        B("Content-Length: 35\r\n\r\n" SMUGGLED) } },
    { "CL-44", "R", "AR", "9112 6.3 / 9110 5.4", "CL is field 302",
      1, 1, NULL, 0, { B("PATCH / HTTP/1.1\r\n" HOST), N(300, "X#: y\r\n"),
        B("Content-Length: 35\r\n\r\n" SMUGGLED) } },
    { "CL-45", "AR", "AR", "9112 6.3 / 9110 5.4", "TE is field 152: decoded or 431",
      1, 1, NULL, 0, { B(POST), N(150, "X#: y\r\n"), B(CHUNKED "\r\n5\r\nhello\r\n" LAST) } },
    // Transfer-Encoding
    { "TE-01", "A", "A", "9112 7.1", "plain",
      1, 1, "hello", 0, { B(POST CHUNKED "\r\n5\r\nhello\r\n" LAST) } },
    { "TE-02", "A", "A", "9112 7", "case-insensitive",
      1, 1, "hello", 0, { B(POST "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-03", "R", "RA", "9112 6.1", "TE+CL (CL.TE / TE.CL): reject, or TE and then MUST close",
      1, 1, NULL, 1, { B(POST CHUNKED "Content-Length: 6\r\n\r\n" LAST SMUGGLED) } },
    { "TE-04", "R", "RA", "9112 6.1", "CL+TE, CL first",
      1, 1, NULL, 1, { B(POST "Content-Length: 5\r\n" CHUNKED "\r\n" LAST SMUGGLED) } },
    { "TE-05", "R", "R", "9112 6.3(4)",
      "identity is not a coding any more: not chunked-final MUST 400",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: identity\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-06", "R", "R", "9112 6.3(4) / 6.1", "chunked not final: 400 (unknown coding: 501)",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: gzip\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-07", "R", "RAO", "9112 6.1", "coding not understood SHOULD 501",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-08", "R", "R", "9112 6.3(4)", "chunked not final MUST 400",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-09", "R", "RA", "9112 6.1", "chunked twice",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-10", "R", "RA", "9112 6.1", "two TE: chunked lines",
      1, 1, NULL, 0, { B(POST CHUNKED CHUNKED "\r\n5\r\nhello\r\n" LAST) } },
    { "TE-11", "R", "R", "9112 6.3(4)", "TE.TE obfuscation",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-12", "R", "R", "9112 6.3(4)", "TE.TE obfuscation",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: chunkedx\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-13", "RA", "RA", "9110 5.6.1", "empty list element (recipient MUST parse & ignore)",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: ,chunked\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-14", "R", "RC", "9110 5.5", "VT before value (TE.TE)",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: \x0b" "chunked\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-15", "R", "RC", "9110 5.5", "NUL after value",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: chunked\x00\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-16", "R", "R", "9112 6.3(4)", "quoted",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: \"chunked\"\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-17", "R", "RA", "9112 7", "parameter on chunked (none defined)",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: chunked;q=1\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-18", "R", "R", "9112 5.1", "SP before colon (TE.TE)",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-19", "A", "A", "9112 5", "no OWS",
      1, 1, "hello", 0, { B(POST "Transfer-Encoding:chunked\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-20", "R", "RA", "9112 5.2", "obs-fold TE",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding:\r\n chunked\r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-21", "R", "RC", "9112 2.2", "TE behind bare CR",
      1, 1, NULL, 0, { B(POST "X: y\r" CHUNKED "\r\n" LAST) } },
    { "TE-22", "R", "RA", "9112 2.2", "TE behind bare LF",
      1, 1, NULL, 0, { B(POST "X: y\n" CHUNKED "\r\n" LAST) } },
    { "TE-23", "R", "R", "9112 6.3(4)", "TE.TE second value",
      1, 1, NULL, 0, { B(POST CHUNKED "Transfer-Encoding: cow\r\n\r\n" LAST) } },
    { "TE-24", "R", "RAO", "9112 6.1", "TE.TE first value: 501",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: cow\r\n" CHUNKED "\r\n" LAST) } },
    { "TE-25", "A", "A", "9112 6.1", "underscore name is just another header",
      1, 1, NULL, 0, { B(POST "Transfer_Encoding: chunked\r\n\r\n") } },
    { "TE-26", "R", "RA", "9112 6.1", "TE in HTTP/1.0: faulty framing, MUST close after",
      1, 1, NULL, 1, { B("POST / HTTP/1.0\r\n" HOST CHUNKED "\r\n5\r\nhello\r\n" LAST) } },
    { "TE-27", "R", "R", "9112 6.3(4)", "empty TE",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: \r\n\r\n5\r\nhello\r\n" LAST) } },
    { "TE-28", "R", "R", "9112 6.3(4)", "NBSP is not OWS",
      1, 1, NULL, 0, { B(POST "Transfer-Encoding: \xa0" "chunked\r\n\r\n5\r\nhello\r\n" LAST) } },
    // chunked bodies
    { "CH-01", "A", "A", "9112 7.1", "upper hex",
      1, 1, "0123456789", 0, { B(POST CHUNKED "\r\nA\r\n0123456789\r\n" LAST) } },
    { "CH-02", "A", "A", "9112 7.1", "leading zeros; last-chunk = 1*0",
      1, 1, "hello", 0, { B(POST CHUNKED "\r\n005\r\nhello\r\n000\r\n\r\n") } },
    { "CH-03", "A", "A", "9112 7.1.1", "extension ignored",
      1, 1, "hello", 0, { B(POST CHUNKED "\r\n5;ext=1\r\nhello\r\n" LAST) } },
    { "CH-04", "A", "A", "9112 7.1.1", "quoted extension",
      1, 1, "hello", 0, { B(POST CHUNKED "\r\n5;ext=\"a;b\\\"c\"\r\nhello\r\n" LAST) } },
    { "CH-05", "A", "AR", "9112 7.1.1",
      "BWS round extension MUST be parsed (erratum-heavy; many reject)",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5 ; ext = 1\r\nhello\r\n" LAST) } },
    { "CH-06", "R", "RA", "9112 7.1", "trailing SP, no extension",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5 \r\nhello\r\n" LAST) } },
    { "CH-07", "R", "RC", "9112 7.1", "leading SP",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n 5\r\nhello\r\n" LAST) } },
    { "CH-08", "R", "RC", "9112 7.1", "plus",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n+5\r\nhello\r\n" LAST) } },
    { "CH-09", "R", "RC", "9112 7.1", "minus",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n-5\r\nhello\r\n" LAST) } },
    { "CH-10", "R", "RC", "9112 7.1", "0x prefix",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n0x5\r\nhello\r\n" LAST) } },
    { "CH-11", "R", "RC", "9112 7.1", "underscore",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5_0\r\nhello\r\n" LAST) } },
    { "CH-12", "R", "RC", "9112 7.1", "garbage suffix",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5z\r\nhello\r\n" LAST) } },
    { "CH-13", "R", "RC", "9112 7.1", "'g' is not hex",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\ng\r\n0123456789abcdef\r\n" LAST) } },
    { "CH-14", "R", "RC", "9112 7.1", "empty size",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n\r\nhello\r\n" LAST) } },
    { "CH-15", "R", "RC", "9112 7.1", "size missing, extension present",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n;x\r\nhello\r\n" LAST) } },
    { "CH-16", "R", "RC", "9112 7.1", "2^64+5 overflow",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n10000000000000005\r\nhello\r\n" LAST SMUGGLED) } },
    { "CH-17", "RT", "RTO", "9112 7.1", "2^32+5 truncation",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n100000005\r\nhello\r\n" LAST SMUGGLED) } },
    { "CH-18", "R", "RCTO", "9112 7.1", "UINT64_MAX",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\nFFFFFFFFFFFFFFFF\r\nhello\r\n" LAST SMUGGLED) } },
    { "CH-19", "R", "RAC", "9112 7.1", "5000 leading zeros: bounded size line",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n"), N(5000, "0"), B("5\r\nhello\r\n" LAST) } },
    { "CH-20", "R", "RC", "9112 7.1 (erratum 7633)", "bare LF in chunked framing",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5\nhello\n0\n\n") } },
    { "CH-21", "R", "RC", "9112 7.1", "bare LF after data",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5\r\nhello\n" LAST) } },
    { "CH-22", "R", "RC", "9112 7.1", "bare LF after size",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5\nhello\r\n" LAST) } },
    { "CH-23", "R", "RC", "9112 7.1", "no CRLF after data",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5\r\nhelloXX0\r\n\r\n") } },
    { "CH-24", "R", "RC", "9112 7.1", "data longer than size",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5\r\nhello!\r\n" LAST) } },
    { "CH-25", "R", "RC", "9112 7.1", "CR+junk after size",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5\rXhello\r\n" LAST) } },
    { "CH-26", "R", "RC", "9112 2.2", "bare CR in extension",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5;a\rb\r\nhello\r\n" LAST) } },
    { "CH-27", "R", "RC", "9112 7.1", "bare LF ends extension",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5;a\nhello\r\n" LAST) } },
    { "CH-28", "R", "RAC", "9112 7.1.1", "100 KB extension: ought to limit, 4xx",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5;"), N(100000, "a"), B("\r\nhello\r\n" LAST) } },
    { "CH-29", "R", "RC", "9112 7.1.1", "NUL in extension",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5;\x00\r\nhello\r\n" LAST) } },
    { "CH-30", "A", "A", "9112 7.1.2", "trailer field",
      1, 1, "hello", 0, { B(POST CHUNKED "\r\n5\r\nhello\r\n0\r\nTrailer: v\r\n\r\n") } },
    { "CH-31", "A", "A", "9112 7.1.2", "trailer then pipelined request",
      2, 2, NULL, 0, { B(POST CHUNKED "\r\n5\r\nhello\r\n0\r\nTrailer: v\r\n\r\n" GET "\r\n") } },
    { "CH-32", "AR", "AR", "9110 6.5.1", "forbidden trailers must not change framing",
      2, 1, NULL, 0, {
        B(POST CHUNKED "\r\n5\r\nhello\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: x\r\n"
          "Host: evil\r\n\r\n" GET "\r\n") } },
    { "CH-33", "R", "RA", "9112 7.1.2 / 5", "malformed trailer line",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5\r\nhello\r\n0\r\nbad trailer\r\n\r\n") } },
    { "CH-34", "R", "RA", "9112 5.1", "SP before colon in trailer",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5\r\nhello\r\n0\r\nX : v\r\n\r\n") } },
    { "CH-35", "R", "RC", "9110 5.4", "unbounded trailers MUST be limited",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5\r\nhello\r\n0\r\n"), N(20000, "X: y\r\n"),
        B("\r\n") } },
    { "CH-36", "A", "A", "9112 7.1.2", "'0 CRLF X:...' is a trailer, not end of body",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n0\r\nX:POST / HTTP/1.1\r\n\r\n") } },
    { "CH-37", "A", "A", "9112 2.2", "junk byte after: answered first, then 400 or wait",
      2, 1, NULL, 0, { B(POST CHUNKED "\r\n5\r\nhello\r\n" LAST "\x00") } },
    { "CH-38", "R", "RC", "9112 7.1", "invalid chunk then request: must not resync",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n1\r\nZ\r\nINVALID\r\n" SMUGGLED) } },
    { "CH-39", "A", "A", "9112 7.1", "split inside data and CRLFs",
      1, 1, "hello", 0, { B(POST CHUNKED "\r\n5\r\nhel"), THEN("lo\r"), THEN("\n0\r"),
        THEN("\n\r"), THEN("\n") } },
    { "CH-40", "T", "T", "9112 8", "no last-chunk: incomplete, wait",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5\r\nhello\r\n3\r\nfoo\r\n") } },
    { "CH-41", "A", "AR", "9112 7.1", "3000 one-byte chunks (overhead attack: may limit)",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n"), N(3000, "1\r\na\r\n"), B(LAST) } },
    { "CH-42", "AR", "AR", "9112 7.1", "20-digit zero last-chunk",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5\r\nhello\r\n00000000000000000000\r\n\r\n") } },
    { "CH-43", "R", "RA", "9112 7.1.1", "empty extension name",
      1, 1, NULL, 0, { B(POST CHUNKED "\r\n5;\r\nhello\r\n" LAST) } },
    // connections
    { "CN-01", "A", "A", "9112 9.3.2", "two pipelined",
      2, 2, NULL, 0, { B(GET "\r\n" GET "\r\n") } },
    { "CN-02", "A", "A", "9112 9.3.2", "16 pipelined in one segment",
      16, 16, NULL, 0, { N(16, GET "\r\n") } },
    { "CN-03", "A", "A", "9112 9.6", "close: second MUST NOT be processed",
      1, 1, NULL, 1, { B(GET "Connection: close\r\n\r\n" GET "\r\n") } },
    { "CN-04", "A", "A", "9112 9.6 / 9110 7.6.1", "close in list, case-insensitive",
      1, 1, NULL, 1, { B(GET "Connection: foo, Close\r\n\r\n" GET "\r\n") } },
    { "CN-05", "A", "AR", "9112 9.6", "close on a second line wins",
      1, 1, NULL, 1, { B(GET "Connection: keep-alive\r\nConnection: close\r\n\r\n" GET "\r\n") } },
    { "CN-06", "A", "A", "9112 9.3", "1.0 without keep-alive closes",
      1, 1, NULL, 1, { B("GET / HTTP/1.0\r\n\r\n" GET "\r\n") } },
    { "CN-07", "A", "A", "9112 9.3", "1.0 keep-alive MAY persist",
      2, 1, NULL, 0, {
        B("GET / HTTP/1.0\r\n" HOST "Connection: keep-alive\r\n\r\n"
          "GET / HTTP/1.0\r\n" HOST "\r\n") } },
    { "CN-08", "A", "A", "9112 9.3.2", "valid then invalid pipelined: first answer must be sent",
      2, 1, NULL, 0, { B(GET "\r\nBAD\r\n\r\n") } },
    { "CN-09", "A", "A", "9112 2.2", "CRLF after a POST body",
      2, 2, NULL, 0, { B(POST "Content-Length: 5\r\n\r\nhello\r\n" GET "\r\n") } },
    { "CN-10", "A", "A", "9112 2", "split request",
      1, 1, NULL, 0, { B("GET / HT"), THEN("TP/1.1\r\nHo"), THEN("st: a\r"), THEN("\n\r"),
        THEN("\n") } },
    { "CN-11", "A", "A", "9112 2", "one byte per segment",
      1, 1, NULL, 0, { EACH(GET "X: y\r\n\r\n") } },
    { "CN-12", "A", "A", "9112 9.3.2", "body tail and next request in one segment",
      2, 2, NULL, 0, { B(POST "Content-Length: 5\r\n\r\nhe"), THEN("llo" GET "\r\n") } },
    { "CN-13", "A", "AOR", "9110 7.8", "unsupported/incomplete Upgrade may be ignored",
      1, 1, NULL, 0, { B(GET "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n") } },
    { "CN-14", "A", "A", "9110 7.8", "h2c upgrade ignored, answered over 1.1",
      1, 1, NULL, 0, {
        B(GET "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
          "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n") } },
    { "CN-15", "A", "AR", "9110 7.8", "Upgrade in HTTP/1.0 MUST be ignored",
      1, 1, NULL, 0, {
        B("GET / HTTP/1.0\r\n" HOST
          "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n") } },
    // Expect
    { "EX-01", "100", "100A", "9110 10.1.1",
      "MUST send 100 (or final) without waiting for the body",
      1, 1, NULL, 0, { B(POST "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n") } },
    { "EX-02", "A", "A", "9110 10.1.1", "body already there: 100 may be omitted",
      1, 1, "hello", 0, { B(POST "Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello") } },
    { "EX-03", "T", "TA", "9110 10.1.1 / 15.2", "1.0: expectation MUST be ignored, no 1xx",
      1, 1, NULL, 0, {
        B("POST / HTTP/1.0\r\n" HOST "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n") } },
    { "EX-04", "RO", "ROA", "9110 10.1.1", "unknown expectation MAY 417",
      1, 1, NULL, 0, { B(GET "Expect: 200-ok\r\n\r\n") } },
    { "EX-05", "100", "100A", "9110 10.1.1", "case-insensitive value, chunked",
      1, 1, NULL, 0, { B(POST CHUNKED "Expect: 100-Continue\r\n\r\n") } },
    // methods
    { "ME-01", "A", "A", "9110 9.3.2", "HEAD: no content, connection still in sync",
      2, 2, NULL, 0, { B("HEAD / HTTP/1.1\r\n" HOST "\r\n" GET "\r\n") } },
    { "ME-02", "A", "AO", "9110 9.3.7", "OPTIONS",
      1, 1, NULL, 0, { B("OPTIONS / HTTP/1.1\r\n" HOST "\r\n") } },
    { "ME-03", "AOR", "AORC", "9110 9.3.8", "TRACE should be refused by default (405/501)",
      1, 1, NULL, 0, { B("TRACE / HTTP/1.1\r\n" HOST "Cookie: s=1\r\n\r\n") } },
    { "ME-04", "A", "AO", "9110 9.3.5", "DELETE without body",
      1, 1, NULL, 0, { B("DELETE / HTTP/1.1\r\n" HOST "\r\n") } },
    { "ME-05", "A", "AO", "5789", "PATCH with body",
      1, 1, NULL, 0, { B("PATCH / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello") } },
    { "ME-06", "AO", "AOR", "9110 9.1", "method token with hyphen",
      1, 1, NULL, 0, { B("M-SEARCH / HTTP/1.1\r\n" HOST "\r\n") } },
    // sizes
    { "SZ-01", "A", "AO", "9112 6.2", "1 MB body",
      1, 1, NULL, 0, { B(POST "Content-Length: 1000000\r\n\r\n"), N(1000000, "z") } },
    { "SZ-02", "A", "A", "9112 2", "one field per segment",
      1, 1, NULL, 0, { B("GET / HTTP/1.1\r\n"), THEN(HOST), THEN("X-0: y\r\n"),
        THEN("X-1: y\r\n"), THEN("X-2: y\r\n"), THEN("\r\n") } },
};

#undef B
#undef THEN
#undef EACH
#undef N
#undef HOST
#undef GET
#undef POST
#undef CHUNKED
#undef LAST
#undef SMUGGLED

enum { HTTP_CASES = (int)(sizeof http_cases / sizeof http_cases[0]) };
#define HTTP_CASES_CRC 0xab31c133u // of ids, outcomes, numbers and bytes; not of sections and notes

// ---- from pieces to bytes ---------------------------------------------------------------------
typedef struct http_input {
    char*  bytes;                     // all segments, one after the other
    size_t len;
    size_t ends[HTTP_CASE_SEGMENTS];  // where each segment ends
    size_t segments;
} http_input;

// Writes one repetition of a piece to out, if there is an out; returns its length.
static size_t http_piece_write(const http_piece* p, unsigned number, char* out) {
    const char* mark = p->times > 1 ? (const char*)memchr(p->bytes, '#', p->len) : NULL;
    size_t before = mark ? (size_t)(mark - p->bytes) : p->len, n;
    char digits[16];
    if (out) memcpy(out, p->bytes, before);
    if (!mark) return before;
    n = (size_t)sprintf(digits, "%u", number);
    if (out) memcpy(out + before, digits, n);
    if (out) memcpy(out + before + n, mark + 1, p->len - before - 1);
    return p->len - 1 + n;
}

// Bytes of all pieces; out and in may be NULL.
static size_t http_case_write(const http_case* c, char* out, http_input* in) {
    const http_piece* p;
    size_t n = 0, i;
    unsigned k;
    for (p = c->pieces; p < c->pieces + HTTP_CASE_PIECES && p->bytes; p++) {
        if (in && p->segment == 1) in->ends[in->segments++] = n;
        for (k = 0; k < p->times; k++) n += http_piece_write(p, k, out ? out + n : NULL);
        if (in && p->segment == 2) {
            for (i = 1; i < p->len; i++) in->ends[in->segments++] = n - p->len + i;
        }
    }
    if (in) in->ends[in->segments++] = n;
    return n;
}

// The memory is exactly as long as the input, so that tools see who reads past its end.
static void http_input_make(http_input* in, const http_case* c) {
    memset(in, 0, sizeof *in);
    in->len = http_case_write(c, NULL, NULL);
    in->bytes = (char*)malloc(in->len);
    if (!in->bytes) {
        printf("http_cases.h: out of memory\n");
        exit(1);
    }
    http_case_write(c, in->bytes, in);
}

static void http_input_free(http_input* in) {
    free(in->bytes);
    memset(in, 0, sizeof *in);
}

// ---- outcomes ---------------------------------------------------------------------------------
// Is the outcome ("A", "R", ..., "100") one of those listed ("RA", "100A")?
static int http_outcome_in(const char* outcome, const char* list) {
    int has_100 = strncmp(list, "100", 3) == 0;
    if (strcmp(outcome, "100") == 0) return has_100;
    return strchr(has_100 ? list + 3 : list, outcome[0]) != NULL;
}
#endif // HTTP_CASES_H
