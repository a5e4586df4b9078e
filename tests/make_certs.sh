#!/bin/sh
# make_certs.sh -- certificates for the TLS tests, by openssl: tests/make_certs.sh DIRECTORY
#
#   ca.pem       signs server (localhost, 127.0.0.1), second (second.test, *.wild.test) and client: NAME.pem, NAME.key
#   other_ca.pem signs stranger
#   long.pem     the certificate of server, and behind it more than 40 KB of others
#   locked.key   the key of server, with a password
set -eu
cd "$1"
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"; }
ca() { # NAME
    key "$1"
    openssl req -x509 -new -key "$1.key" -days 30 -subj "/CN=netkit test $1" -out "$1.pem" \
        -addext 'keyUsage=critical,keyCertSign,cRLSign'
}
signed() { # NAME CA ALTERNATIVE_NAMES DAYS
    key "$1"
    openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
    printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\n' "$3" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -days "$4" -extfile "$1.ext" -out "$1.pem"
}
ca ca
ca other_ca
signed server ca "DNS:localhost,IP:127.0.0.1" 30
signed second ca "DNS:second.test,DNS:*.wild.test" 30
signed client ca "DNS:client.test" 30
signed stranger other_ca "DNS:localhost" 30
openssl ec -in server.key -aes128 -passout pass:secret -out locked.key
cp server.pem long.pem
while [ "$(wc -c <long.pem)" -lt 60000 ]; do cat second.pem client.pem >>long.pem; done
