#!/usr/bin/env bash
# Writes the generated parts of README.md and docs/operations.md. What the native engine says of itself
# is asked where build/out has its libraries; else the files in
# cmd/anyquic/testdata/engines stay as they are, and this script says so.
set -euo pipefail
cd "$(dirname "$0")/.."

columns() { CGO_ENABLED=$1 go test ./cmd/anyquic -count=1 -tags "$2" -run TestTheREADMEsColumns -update; }

columns 0 ""
for tls in openssl wolfssl; do
	if [ -f "build/out/lib/pkgconfig/anyquic-$tls.pc" ]; then
		columns 1 "ngtcp2,$tls"
	else
		printf 'make readme: the column for %s stays as it is; make deps builds what it needs\n' "$tls" >&2
	fi
done
go test ./cmd/anyquic -count=1 -run "TestREADMEIs|TestTheTableOfSeries" -update
