# Acceptance cases for an HTTP/1.1 server, after RFC 9110 and RFC 9112. The server under test answers every method on every path
# with 200 and the body of the request. tests/http_cases.h is the same table in C; `python3 http_cases.py` compares the two.
#
# c(id, bytes or [segments], want, allows, section, note, most, body)
#   want    outcomes that are right for us        allows  outcomes that the RFCs let pass
#   most    accepted messages; one more, and a hidden request has been executed
#   body    that the answer to the first message must have
# Outcome letters: A accepted (first final status 2xx or 404), R refused (>= 400) and closed, O refused and left open,
#   C closed without an answer, T no answer and still open, 100 only 100 Continue so far.
H = b"Host: a\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
SMUG = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
CASES = []


def G(x=b"", line=b"GET / HTTP/1.1\r\n", h=H):
    return line + h + x + b"\r\n"


def P(hdrs, body=b"", line=b"POST / HTTP/1.1\r\n", h=H):
    return line + h + hdrs + b"\r\n" + body


def c(id, data, want, allows, sec, note, n=1, body=None):
    data = data if isinstance(data, list) else [data]
    CASES.append(dict(id=id, data=data, want=want, allows=allows, sec=sec, note=note, n=n, body=body))


# ---- request line ----
r=lambda l: l+b"\r\n"+H+b"\r\n"
c("RL-01",b"\r\n"+G(),"A","A","9112 2.2","one leading CRLF SHOULD be ignored")
c("RL-02",b"\r\n\r\n\r\n"+G(),"A","ARC","9112 2.2","several leading CRLF (at least one)")
c("RL-03",r(b"get / HTTP/1.1"),"A","ARO","9110 9.1","lowercase method is a different method (501/405 or app decides)")
c("RL-04",r(b"GET  / HTTP/1.1"),"R","RCA","9112 3","double SP")
c("RL-05",r(b"GET /  HTTP/1.1"),"R","RCA","9112 3","double SP before version")
c("RL-06",r(b"GET\t/\tHTTP/1.1"),"R","RCA","9112 3","HTAB separators")
c("RL-07",r(b"GET /a b HTTP/1.1"),"R","RC","9112 3.2","SP in target")
c("RL-08",r(b"GET / http/1.1"),"R","RC","9112 2.3","HTTP-name is case-sensitive")
c("RL-09",r(b"GET / HTTP/1.1 "),"R","RCA","9112 3","trailing SP")
c("RL-10",r(b"GET / HTTP/1.32"),"R","RC","9112 2.3","two-digit minor")
c("RL-11",r(b"GET / HTTP/1.2"),"A","A","9110 2.5","higher minor SHOULD be processed as 1.1")
c("RL-12",r(b"GET / HTTP/2.0"),"R","RC","9110 15.6.6","505")
c("RL-13",r(b"GET / HTTP/0.9"),"R","RC","9112 2.3","0.9 with version")
c("RL-14",b"GET /\r\n\r\n","R","RC","9112 App A","HTTP/0.9 simple request")
c("RL-15",r(b"GET ! HTTP/1.1"),"R","RCOA","9112 3.2","target is none of the four forms")
c("RL-16",r(b"GET /\x00x HTTP/1.1"),"R","RC","9112 3.2","NUL in target")
c("RL-17",r(b"GET /\x7fx HTTP/1.1"),"R","RCOA","9112 3.2 / 3986","DEL in target")
c("RL-18",r(b"GET /\xff\xfe HTTP/1.1"),"RA","RCOA","9112 3.2 / 3986","raw 8-bit in target")
c("RL-19",r(b"GET /%zz HTTP/1.1"),"AR","ARO","3986 2.1","bad pct-encoding: 400 recommended at decode time")
c("RL-20",r(b"GET /%00 HTTP/1.1"),"AR","ARO","3986","encoded NUL must never reach the file system")
c("RL-21",b"G=\":<>(e),[T];?\" / HTTP/1.1\r\n"+H+b"\r\n","R","RC","9110 5.6.2","non-token method")
c("RL-22",r(b"SLUDGE / HTTP/1.1"),"AO","AORC","9110 9.1","unknown token method: 501 or handler")
c("RL-23",r(b"GET / HTTP/1.1").replace(b"\r\n",b"\n",1),"R","ARC","9112 2.2","bare LF ends request line")
c("RL-24",b"GET / HTTP/1.1\rHost: a\r\n\r\n","R","RC","9112 2.2","bare CR ends request line")
c("RL-25",b"GET /\nHTTP/1.1\r\n"+H+b"\r\n","R","RC","9112 3","LF as SP")
c("RL-26",b" GET / HTTP/1.1\r\n"+H+b"\r\n","R","RCA","9112 3","leading SP")
c("RL-27",b" \r\n"+G(),"R","RCA","9112 2.2","whitespace-only leading line")
c("RL-28",r(b"GET /"+b"a"*7900+b" HTTP/1.1"),"A","AO","9112 3","8000-octet request line RECOMMENDED minimum")
c("RL-29",r(b"GET /"+b"a"*200000+b" HTTP/1.1"),"R","RC","9112 3","URI too long MUST 414")
c("RL-30",r(b"A"*300+b" / HTTP/1.1"),"RAO","RAOC","9112 3","long method SHOULD 501")
c("RL-31",b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"+b"\x00"*40,"RC","RC","9112 2.2","TLS hello on plain port")
c("RL-32",b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n","R","RC","9113 3.4","h2 preface")
c("RL-33",r(b"GET / HTTP/1.1\x00"),"R","RC","9112 2.3","NUL after version")
c("RL-34",r(b"GET / HTTP/01.1"),"R","RC","9112 2.3","version leading zero")
c("RL-35",r(b"GET / HTTP/1,1"),"R","RC","9112 2.3","comma version")
c("RL-36",r(b"GET /a#frag HTTP/1.1"),"R","RCOA","9112 3.2 / 3986 3.5","fragment in request-target")
c("RL-37",r(b"GET /a\"b<c>^`{|} HTTP/1.1"),"RA","RCOA","3986 2","characters no URI may contain")
c("RL-38",r(b"GET /a\\..\\b HTTP/1.1"),"RA","RCOA","3986 2","backslash in target (never a separator for static files)")
# ---- target forms & Host ----
c("HO-01",b"GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n","A","A","9112 3.2.2","absolute-form MUST be accepted")
c("HO-02",b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n","A","AR","9112 3.2.2","absolute-form: Host ignored, target host wins")
c("HO-03",b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n","A","A","9112 3.2.2","absolute-form with empty path")
c("HO-04",b"GET http://a?x=1 HTTP/1.1\r\nHost: a\r\n\r\n","A","A","9112 3.2.2","absolute-form, no path, query")
c("HO-05",b"GET http://a/x HTTP/1.1\r\n\r\n","R","R","9112 3.2","absolute-form still needs Host in 1.1")
c("HO-06",b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n","A","AO","9112 3.2.4","asterisk-form")
c("HO-07",b"GET * HTTP/1.1\r\nHost: a\r\n\r\n","RO","ROC","9112 3.2.4","asterisk only for OPTIONS")
c("HO-08",b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n","RO","RO","9110 9.3.6","authority-form CONNECT, origin server: 405/501")
c("HO-09",b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n","R","RCO","9112 3.2.3","authority-form only for CONNECT")
c("HO-10",b"GET / HTTP/1.1\r\nHost: \r\n\r\n","R","AR","9112 3.2 / 9110 4.2.1","empty Host: an http URI with an empty host MUST be rejected")
c("HO-11",b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n","R","R","9112 3.2","SP inside Host value")
c("HO-12",b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n","R","R","9112 3.2","bad port")
c("HO-13",b"GET / HTTP/1.1\r\nHost: a/../b\r\n\r\n","R","R","9112 3.2","slash in Host")
c("HO-14",b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n","R","R","9112 3.2","userinfo in Host")
c("HO-15",b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n","A","A","3986 3.2.2","IPv6 literal Host")
c("HO-16",b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n","R","R","9112 3.2","unclosed bracket")
c("HO-17",b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n","R","R","9112 3.2","comma list in Host")
c("HO-18",b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n","R","R","9112 3.2","duplicate Host, same value")
c("HO-19",b"GET / HTTP/1.0\r\n\r\n","A","A","9112 3.2","HTTP/1.0 without Host is fine")
c("HO-20",b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n","R","R","9112 3.2","two Host in 1.0 ('any request message')")
c("HO-21",b"GET / HTTP/1.1\r\nHost: a\x00b\r\n\r\n","R","R","9110 5.5","NUL in Host")
c("HO-22",b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n","RA","RAO","9110 4.2.4","userinfo in http URI SHOULD be an error")
c("HO-23",b"GET //evil/x HTTP/1.1\r\nHost: a\r\n\r\n","AR","ARO","9112 3.2.1","path starting // is origin-form")
c("HO-24",b"GET / HTTP/1.1\r\nHost: \xffa\xff\r\n\r\n","R","R","9112 3.2","obs-text in Host")
# ---- header fields ----
c("HD-01",G(b"X : 1\r\n"),"R","R","9112 5.1","SP before colon MUST 400")
c("HD-02",G(b"X\t: 1\r\n"),"R","R","9112 5.1","HTAB before colon MUST 400")
c("HD-03",b"GET / HTTP/1.1\r\n X: 1\r\n"+H+b"\r\n","R","RA","9112 2.2","SP before first field: reject or drop the line")
c("HD-04",b"GET / HTTP/1.1\r\n\tContent-Length: 1\r\n"+H+b"\r\nX","R","RA","9112 2.2","HTAB before first field",2)
c("HD-05",G(b"X: a\r\n b\r\n"),"R","RA","9112 5.2","obs-fold: 400 or replace by SP")
c("HD-06",G(b"X: a\r\n\tb\r\n"),"R","RA","9112 5.2","obs-fold HTAB")
c("HD-07",G(b"X:\r\n \r\n"),"R","RA","9112 5.2","obs-fold blank line")
c("HD-08",G(b": v\r\n"),"R","RC","9110 5.1","empty name")
c("HD-09",G(b"NoColon\r\n"),"R","RC","9112 5","no colon")
c("HD-10",G(b"X: a\x00b\r\n"),"R","RA","9110 5.5","NUL in value: reject or SP")
c("HD-11",G(b"X: a\rb\r\n"),"R","RA","9110 5.5 / 9112 2.2","bare CR in value: reject or SP")
c("HD-12",G(b"X: a\nY: b\r\n"),"R","RA","9112 2.2","bare LF as line end (MAY accept)")
c("HD-13",G(b"X: 1\r\n").replace(b"\r\n",b"\n"),"R","RA","9112 2.2","all-LF request (MAY accept)")
c("HD-14",G(b"X\x00Y: 1\r\n"),"R","RC","9110 5.1","NUL in name")
c("HD-15",G(b"X\xe9: 1\r\n"),"R","RC","9110 5.1","8-bit in name")
c("HD-16",G(b"X(Y: 1\r\n"),"R","RC","9110 5.1","delimiter in name")
c("HD-17",G(b"!#$%&'*+-.^_`|~09azAZ: v\r\n"),"A","A","9110 5.6.2","every tchar is legal")
c("HD-18",G(b"X: caf\xe9\r\n"),"A","AR","9110 5.5","obs-text value is opaque data")
c("HD-19",G(b"X: a\tb\r\n"),"A","A","9110 5.5","HTAB inside value")
c("HD-20",G(b"X: a\x7fb\r\n"),"R","RA","9110 5.5","DEL in value")
c("HD-21",G(b"X: a\x1bb\r\n"),"R","RA","9110 5.5","ESC in value")
c("HD-22",G(b"X:\t  v  \t\r\n"),"A","A","9112 5.1","OWS trimmed both ends")
c("HD-23",G(b"X: 1\r\nX: 2\r\n"),"A","A","9110 5.3","repeated field")
c("HD-24",G(b"".join(b"X-%d: v\r\n"%i for i in range(64))),"A","AO","9110 5.4","64 fields")
c("HD-25",G(b"".join(b"X-%d: v\r\n"%i for i in range(20000))),"R","RC","9110 5.4","20000 fields MUST 4xx (431)")
c("HD-26",G(b"X: "+b"a"*6000+b"\r\n"),"A","AOR","9110 5.4","6000-byte value")
c("HD-27",G(b"X: "+b"a"*300000+b"\r\n"),"R","RC","9110 5.4","300 KB value MUST 4xx (431)")
c("HD-28",b"GET / HTTP/1.1\r\nHost: a\r\n\rZGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n","R","RC","9112 2.2","\\r\\n\\rX must not end the head")
c("HD-29",b"GET / HTTP/1.1\r\nHost: a\r\n\n","R","RA","9112 2.2","CRLF then bare LF ends head (MAY accept)")
c("HD-30",G(b"Transfer-\r\nEncoding: chunked\r\n"),"R","RC","9112 5","name split across lines")
c("HD-31",G(b"X: a\x85\r\nY: \xa0\r\n"),"A","AR","9112 5.1","0x85/0xA0 are not OWS")
# ---- Content-Length ----
def cl(v): return P(b"Content-Length: "+v+b"\r\n",b"hello"+SMUG)
for i,(v,w,al,nt) in enumerate([
    (b"+5","R","R","plus sign"),
    (b"-5","R","R","minus"),
    (b"5 ","A","A","trailing OWS"),
    (b"0x5","R","R","hex"),
    (b"5_0","R","R","underscore"),
    (b"5.0","R","R","decimal point"),
    (b"5;a","R","R","garbage suffix"),
    (b"5 5","R","R","space separated"),
    (b"","R","R","empty value"),
    (b"5, 5","RA","RA","same list: reject or collapse"),
    (b"5, 6","R","R","differing list"),
    (b"5,","R","RA","trailing comma list"),
    (b"005","A","A","leading zeros are 1*DIGIT"),
    (b"18446744073709551621","R","R","2^64+5 wraps to 5"),
    (b"4294967301","RT","RTO","2^32+5: must not truncate to 5"),
    (b"99999999999999999999999999","R","R","overflow"),
    (b"\xef\xbc\x95","R","R","fullwidth digit"),
    (b"5\x00","R","R","NUL suffix"),
    (b"1e1","R","R","exponent"),
    (b"\x0b5","R","R","VT before"),
    (b"0b5","R","R","binary prefix"),
]):
    n=2 if w in("A","RA") else (2 if "A" in al else 1)
    c("CL-%02d"%(i+1),cl(v),w,al,"9112 6.3(5) / 9110 8.6","CL '%s': %s"%(v.decode('latin1'),nt),n)
c("CL-30",P(b"Content-Length: 5\r\nContent-Length: 5\r\n",b"hello"),"RA","RA","9112 6.3(5)","duplicate CL, same value")
c("CL-31",P(b"Content-Length: 5\r\nContent-Length: 6\r\n",b"hello"+SMUG),"R","R","9112 6.3(5)","duplicate CL, differing")
c("CL-32",P(b"Content-Length: \r\nContent-Length: 5\r\n",b"hello"+SMUG),"R","R","9112 6.3(5)","empty CL then CL")
c("CL-33",P(b"Content-Length : 5\r\n",b"hello"+SMUG),"R","R","9112 5.1","SP before colon on CL")
c("CL-34",P(b"Content-Length 5\r\n",b"hello"+SMUG),"R","RC","9112 5","CL without colon")
c("CL-35",P(b"Content_Length: 5\r\n",b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"),"A","A","9112 6.3(7)","Content_Length is not CL: body length 0, next bytes are a request",2)
c("CL-36",G(b"Content-Length: 5\r\n")+b"hello","A","AR","9110 9.3.1","GET with a body must be framed",1,b"hello")
c("CL-37",P(b""),"A","AR","9112 6.3(7)","POST with neither CL nor TE: length 0 (411 allowed)")
c("CL-38",P(b"Content-Length: 0\r\n")+G(),"A","A","9112 6.3","CL 0 then pipelined",2)
c("CL-39",G(b"Content-Length\x85: 5\r\n")+b"hello","R","RC","9110 5.1","0x85 in name")
c("CL-40",P(b"Content-Length: 5\r\n X: y\r\n",b"hello"),"R","RA","9112 5.2","obs-fold on CL")
c("CL-41",P(b"Content-Length: 9223372036854775807\r\n",b"hello"),"RT","RTO","9110 15.5.14","INT64_MAX body: 413 on headers")
MANY=lambda k:b"".join(b"X%d: y\r\n"%i for i in range(k))
c("CL-42",b"PATCH / HTTP/1.1\r\n"+H+MANY(29)+b"Content-Length: 35\r\n\r\n"+b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n","A","AR","9112 6.3 / 9110 5.4","CL is field 31: a full header table must 431, never truncate")
c("CL-43",b"PATCH / HTTP/1.1\r\n"+H+MANY(63)+b"Content-Length: 35\r\n\r\n"+b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n","AR","AR","9112 6.3 / 9110 5.4","CL is field 65")
c("CL-44",b"PATCH / HTTP/1.1\r\n"+H+MANY(300)+b"Content-Length: 35\r\n\r\n"+b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n","R","AR","9112 6.3 / 9110 5.4","CL is field 302")
c("CL-45",P(MANY(150)+TE,b"5\r\nhello\r\n0\r\n\r\n"),"AR","AR","9112 6.3 / 9110 5.4","TE is field 152: decoded or 431",1)
# ---- Transfer-Encoding ----
def te(v,b=b"5\r\nhello\r\n0\r\n\r\n",extra=b""): return P(b"Transfer-Encoding: "+v+b"\r\n"+extra,b)
c("TE-01",te(b"chunked"),"A","A","9112 7.1","plain",1,b"hello")
c("TE-02",te(b"Chunked"),"A","A","9112 7","case-insensitive",1,b"hello")
c("TE-03",te(b"chunked",b"0\r\n\r\n"+SMUG,b"Content-Length: 6\r\n"),"R","RA","9112 6.1","TE+CL (CL.TE / TE.CL): reject, or TE and then MUST close")
c("TE-04",P(b"Content-Length: 5\r\n"+TE,b"0\r\n\r\n"+SMUG),"R","RA","9112 6.1","CL+TE, CL first")
c("TE-05",te(b"identity"),"R","R","9112 6.3(4)","identity is not a coding any more: not chunked-final MUST 400")
c("TE-06",te(b"gzip"),"R","R","9112 6.3(4) / 6.1","chunked not final: 400 (unknown coding: 501)")
c("TE-07",te(b"gzip, chunked"),"R","RAO","9112 6.1","coding not understood SHOULD 501")
c("TE-08",te(b"chunked, gzip"),"R","R","9112 6.3(4)","chunked not final MUST 400")
c("TE-09",te(b"chunked, chunked"),"R","RA","9112 6.1","chunked twice")
c("TE-10",P(TE+TE,b"5\r\nhello\r\n0\r\n\r\n"),"R","RA","9112 6.1","two TE: chunked lines")
c("TE-11",te(b"xchunked"),"R","R","9112 6.3(4)","TE.TE obfuscation")
c("TE-12",te(b"chunkedx"),"R","R","9112 6.3(4)","TE.TE obfuscation")
c("TE-13",te(b",chunked"),"RA","RA","9110 5.6.1","empty list element (recipient MUST parse & ignore)")
c("TE-14",te(b"\x0bchunked"),"R","RC","9110 5.5","VT before value (TE.TE)")
c("TE-15",te(b"chunked\x00"),"R","RC","9110 5.5","NUL after value")
c("TE-16",te(b"\"chunked\""),"R","R","9112 6.3(4)","quoted")
c("TE-17",te(b"chunked;q=1"),"R","RA","9112 7","parameter on chunked (none defined)")
c("TE-18",P(b"Transfer-Encoding : chunked\r\n",b"5\r\nhello\r\n0\r\n\r\n"),"R","R","9112 5.1","SP before colon (TE.TE)")
c("TE-19",P(b"Transfer-Encoding:chunked\r\n",b"5\r\nhello\r\n0\r\n\r\n"),"A","A","9112 5","no OWS",1,b"hello")
c("TE-20",P(b"Transfer-Encoding:\r\n chunked\r\n",b"5\r\nhello\r\n0\r\n\r\n"),"R","RA","9112 5.2","obs-fold TE")
c("TE-21",P(b"X: y\rTransfer-Encoding: chunked\r\n",b"0\r\n\r\n"),"R","RC","9112 2.2","TE behind bare CR")
c("TE-22",P(b"X: y\nTransfer-Encoding: chunked\r\n",b"0\r\n\r\n"),"R","RA","9112 2.2","TE behind bare LF")
c("TE-23",P(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n",b"0\r\n\r\n"),"R","R","9112 6.3(4)","TE.TE second value")
c("TE-24",P(b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n",b"0\r\n\r\n"),"R","RAO","9112 6.1","TE.TE first value: 501")
c("TE-25",P(b"Transfer_Encoding: chunked\r\n"),"A","A","9112 6.1","underscore name is just another header")
c("TE-26",b"POST / HTTP/1.0\r\nHost: a\r\n"+TE+b"\r\n5\r\nhello\r\n0\r\n\r\n","R","RA","9112 6.1","TE in HTTP/1.0: faulty framing, MUST close after")
c("TE-27",te(b""),"R","R","9112 6.3(4)","empty TE")
c("TE-28",te(b"\xa0chunked"),"R","R","9112 6.3(4)","NBSP is not OWS")
# ---- chunked body ----
def ch(b,tail=b""): return P(TE,b+tail)
E0=b"0\r\n\r\n"
c("CH-01",ch(b"A\r\n0123456789\r\n"+E0),"A","A","9112 7.1","upper hex",1,b"0123456789")
c("CH-02",ch(b"005\r\nhello\r\n000\r\n\r\n"),"A","A","9112 7.1","leading zeros; last-chunk = 1*0",1,b"hello")
c("CH-03",ch(b"5;ext=1\r\nhello\r\n"+E0),"A","A","9112 7.1.1","extension ignored",1,b"hello")
c("CH-04",ch(b"5;ext=\"a;b\\\"c\"\r\nhello\r\n"+E0),"A","A","9112 7.1.1","quoted extension",1,b"hello")
c("CH-05",ch(b"5 ; ext = 1\r\nhello\r\n"+E0),"A","AR","9112 7.1.1","BWS round extension MUST be parsed (erratum-heavy; many reject)",1)
c("CH-06",ch(b"5 \r\nhello\r\n"+E0),"R","RA","9112 7.1","trailing SP, no extension")
c("CH-07",ch(b" 5\r\nhello\r\n"+E0),"R","RC","9112 7.1","leading SP")
c("CH-08",ch(b"+5\r\nhello\r\n"+E0),"R","RC","9112 7.1","plus")
c("CH-09",ch(b"-5\r\nhello\r\n"+E0),"R","RC","9112 7.1","minus")
c("CH-10",ch(b"0x5\r\nhello\r\n"+E0),"R","RC","9112 7.1","0x prefix")
c("CH-11",ch(b"5_0\r\nhello\r\n"+E0),"R","RC","9112 7.1","underscore")
c("CH-12",ch(b"5z\r\nhello\r\n"+E0),"R","RC","9112 7.1","garbage suffix")
c("CH-13",ch(b"g\r\n"+b"0123456789abcdef"+b"\r\n"+E0),"R","RC","9112 7.1","'g' is not hex")
c("CH-14",ch(b"\r\nhello\r\n"+E0),"R","RC","9112 7.1","empty size")
c("CH-15",ch(b";x\r\nhello\r\n"+E0),"R","RC","9112 7.1","size missing, extension present")
c("CH-16",ch(b"10000000000000005\r\nhello\r\n"+E0,SMUG),"R","RC","9112 7.1","2^64+5 overflow")
c("CH-17",ch(b"100000005\r\nhello\r\n"+E0,SMUG),"RT","RTO","9112 7.1","2^32+5 truncation")
c("CH-18",ch(b"FFFFFFFFFFFFFFFF\r\nhello\r\n"+E0,SMUG),"R","RCTO","9112 7.1","UINT64_MAX")
c("CH-19",ch(b"0"*5000+b"5\r\nhello\r\n"+E0),"R","RAC","9112 7.1","5000 leading zeros: bounded size line")
c("CH-20",ch(b"5\nhello\n0\n\n"),"R","RC","9112 7.1 (erratum 7633)","bare LF in chunked framing")
c("CH-21",ch(b"5\r\nhello\n0\r\n\r\n"),"R","RC","9112 7.1","bare LF after data")
c("CH-22",ch(b"5\nhello\r\n"+E0),"R","RC","9112 7.1","bare LF after size")
c("CH-23",ch(b"5\r\nhelloXX"+E0),"R","RC","9112 7.1","no CRLF after data")
c("CH-24",ch(b"5\r\nhello!\r\n"+E0),"R","RC","9112 7.1","data longer than size")
c("CH-25",ch(b"5\rXhello\r\n"+E0),"R","RC","9112 7.1","CR+junk after size")
c("CH-26",ch(b"5;a\rb\r\nhello\r\n"+E0),"R","RC","9112 2.2","bare CR in extension")
c("CH-27",ch(b"5;a\nhello\r\n"+E0),"R","RC","9112 7.1","bare LF ends extension")
c("CH-28",ch(b"5;"+b"a"*100000+b"\r\nhello\r\n"+E0),"R","RAC","9112 7.1.1","100 KB extension: ought to limit, 4xx")
c("CH-29",ch(b"5;\x00\r\nhello\r\n"+E0),"R","RC","9112 7.1.1","NUL in extension")
c("CH-30",ch(b"5\r\nhello\r\n0\r\nTrailer: v\r\n\r\n"),"A","A","9112 7.1.2","trailer field",1,b"hello")
c("CH-31",ch(b"5\r\nhello\r\n0\r\nTrailer: v\r\n\r\n",G()),"A","A","9112 7.1.2","trailer then pipelined request",2)
c("CH-32",ch(b"5\r\nhello\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: x\r\nHost: evil\r\n\r\n",G()),"AR","AR","9110 6.5.1","forbidden trailers must not change framing",2)
c("CH-33",ch(b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n"),"R","RA","9112 7.1.2 / 5","malformed trailer line")
c("CH-34",ch(b"5\r\nhello\r\n0\r\nX : v\r\n\r\n"),"R","RA","9112 5.1","SP before colon in trailer")
c("CH-35",ch(b"5\r\nhello\r\n0\r\n"+b"X: y\r\n"*20000+b"\r\n"),"R","RC","9110 5.4","unbounded trailers MUST be limited")
c("CH-36",ch(b"0\r\nX:POST / HTTP/1.1\r\n\r\n"),"A","A","9112 7.1.2","'0 CRLF X:...' is a trailer, not end of body")
c("CH-37",ch(b"5\r\nhello\r\n0\r\n\r\n",b"\x00"),"A","A","9112 2.2","junk byte after: answered first, then 400 or wait",2)
c("CH-38",ch(b"1\r\nZ\r\nINVALID\r\n",SMUG),"R","RC","9112 7.1","invalid chunk then request: must not resync")
c("CH-39",[P(TE,b"5\r\nhel"),b"lo\r",b"\n0\r",b"\n\r",b"\n"],"A","A","9112 7.1","split inside data and CRLFs",1,b"hello")
c("CH-40",ch(b"5\r\nhello\r\n3\r\nfoo\r\n"),"T","T","9112 8","no last-chunk: incomplete, wait")
c("CH-41",ch(b"1\r\na\r\n"*3000+E0),"A","AR","9112 7.1","3000 one-byte chunks (overhead attack: may limit)",1)
c("CH-42",ch(b"5\r\nhello\r\n00000000000000000000\r\n\r\n"),"AR","AR","9112 7.1","20-digit zero last-chunk")
c("CH-43",ch(b"5;\r\nhello\r\n"+E0),"R","RA","9112 7.1.1","empty extension name")
# ---- connection management ----
c("CN-01",G()+G(),"A","A","9112 9.3.2","two pipelined",2)
c("CN-02",G()*16,"A","A","9112 9.3.2","16 pipelined in one segment",16)
c("CN-03",G(b"Connection: close\r\n")+G(),"A","A","9112 9.6","close: second MUST NOT be processed",1)
c("CN-04",G(b"Connection: foo, Close\r\n")+G(),"A","A","9112 9.6 / 9110 7.6.1","close in list, case-insensitive",1)
c("CN-05",G(b"Connection: keep-alive\r\nConnection: close\r\n")+G(),"A","AR","9112 9.6","close on a second line wins",1)
c("CN-06",b"GET / HTTP/1.0\r\n\r\n"+G(),"A","A","9112 9.3","1.0 without keep-alive closes",1)
c("CN-07",b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"+b"GET / HTTP/1.0\r\nHost: a\r\n\r\n","A","A","9112 9.3","1.0 keep-alive MAY persist",2)
c("CN-08",G()+b"BAD\r\n\r\n","A","A","9112 9.3.2","valid then invalid pipelined: first answer must be sent",2)
c("CN-09",P(b"Content-Length: 5\r\n",b"hello")+b"\r\n"+G(),"A","A","9112 2.2","CRLF after a POST body",2)
c("CN-10",[b"GET / HT",b"TP/1.1\r\nHo",b"st: a\r",b"\n\r",b"\n"],"A","A","9112 2","split request")
c("CN-11",[bytes([x]) for x in G(b"X: y\r\n")],"A","A","9112 2","one byte per segment")
c("CN-12",[P(b"Content-Length: 5\r\n",b"he"),b"llo"+G()],"A","A","9112 9.3.2","body tail and next request in one segment",2)
c("CN-13",G(b"Upgrade: websocket\r\nConnection: Upgrade\r\n"),"A","AOR","9110 7.8","unsupported/incomplete Upgrade may be ignored")
c("CN-14",G(b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"),"A","A","9110 7.8","h2c upgrade ignored, answered over 1.1")
c("CN-15",b"GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n","A","AR","9110 7.8","Upgrade in HTTP/1.0 MUST be ignored")
# ---- Expect / HEAD / OPTIONS etc ----
c("EX-01",[P(b"Content-Length: 5\r\nExpect: 100-continue\r\n")],"100","100A","9110 10.1.1","MUST send 100 (or final) without waiting for the body")
c("EX-02",[P(b"Content-Length: 5\r\nExpect: 100-continue\r\n",b"hello")],"A","A","9110 10.1.1","body already there: 100 may be omitted",1,b"hello")
c("EX-03",[b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"],"T","TA","9110 10.1.1 / 15.2","1.0: expectation MUST be ignored, no 1xx")
c("EX-04",G(b"Expect: 200-ok\r\n"),"RO","ROA","9110 10.1.1","unknown expectation MAY 417")
c("EX-05",[P(b"Transfer-Encoding: chunked\r\nExpect: 100-Continue\r\n")],"100","100A","9110 10.1.1","case-insensitive value, chunked")
c("ME-01",b"HEAD / HTTP/1.1\r\n"+H+b"\r\n"+G(),"A","A","9110 9.3.2","HEAD: no content, connection still in sync",2)
c("ME-02",b"OPTIONS / HTTP/1.1\r\n"+H+b"\r\n","A","AO","9110 9.3.7","OPTIONS")
c("ME-03",b"TRACE / HTTP/1.1\r\n"+H+b"Cookie: s=1\r\n\r\n","AOR","AORC","9110 9.3.8","TRACE should be refused by default (405/501)")
c("ME-04",b"DELETE / HTTP/1.1\r\n"+H+b"\r\n","A","AO","9110 9.3.5","DELETE without body")
c("ME-05",b"PATCH / HTTP/1.1\r\n"+H+b"Content-Length: 5\r\n\r\nhello","A","AO","5789","PATCH with body",1)
c("ME-06",b"M-SEARCH / HTTP/1.1\r\n"+H+b"\r\n","AO","AOR","9110 9.1","method token with hyphen")
c("SZ-01",P(b"Content-Length: 1000000\r\n",b"z"*1000000),"A","AO","9112 6.2","1 MB body",1)
c("SZ-02",[b"GET / HTTP/1.1\r\n",b"Host: a\r\n"]+[b"X-%d: y\r\n"%i for i in range(3)]+[b"\r\n"],"A","A","9112 2","one field per segment")


# How many answers there must be where that is not `most`, and after which accepted messages the connection must be closed.
LEAST = {"CH-37": 1, "CN-08": 1, "CN-07": 1, "CH-32": 1}
MUST_CLOSE = {"TE-03", "TE-04", "TE-26", "CN-03", "CN-04", "CN-05", "CN-06"}
for x in CASES:
    x["nmin"] = LEAST.get(x["id"], x["n"] if x["want"] == "A" else 1)
    x["must_close"] = x["id"] in MUST_CLOSE


def crc():
    """Of everything but sections and notes; tests/test_http_cases.c computes the same from its table."""
    import zlib
    v = 0
    for x in CASES:
        head = "%s %s %s %d %d %d " % (x["id"], x["want"], x["allows"], x["n"], x["nmin"], x["must_close"])
        v = zlib.crc32((x["body"] or b""), zlib.crc32(head.encode(), v))
        end = 0
        for seg in x["data"]:
            end += len(seg)
            v = zlib.crc32(b" %d " % end, v)
        v = zlib.crc32(b"".join(x["data"]), v)
    return v


def crc_of_c():
    """HTTP_CASES_CRC of tests/http_cases.h, or None if that file is not where it belongs."""
    import os
    import re
    try:
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "http_cases.h")) as f:
            m = re.search(r"#define HTTP_CASES_CRC 0x([0-9a-f]+)u", f.read())
            return int(m.group(1), 16) if m else None
    except OSError:
        return None


if __name__ == "__main__":
    import sys
    assert len({x["id"] for x in CASES}) == len(CASES)
    print("%d cases, CRC 0x%08x, tests/http_cases.h has 0x%08x" % (len(CASES), crc(), crc_of_c() or 0))
    sys.exit(crc() != crc_of_c())
