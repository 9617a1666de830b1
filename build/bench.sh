#!/usr/bin/env bash
# Measures the whole program beside mochi-mqtt, in turn, and the QUIC engines, and
# writes the reports into the folder given (default bench-out).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-bench-out}
mkdir -p "$out/bin"

go build -o "$out/bin/anyquic" ./cmd/anyquic
(cd tests/peers && go build -o "../../$out/bin/" ./mochi ./quicgo)
anyquic=$out/bin/anyquic
mochi=mochi=$out/bin/mochi

report() { # NAME ARGUMENTS...
	printf '\n== %s\n' "$1" | tee "$out/$1.txt"
	"$anyquic" bench "${@:2}" | tee -a "$out/$1.txt"
}

report mqtt-qos0 mqtt --carrier tcp,tls,quic --peer "$mochi" --scenario throughput,latency
report mqtt-qos1 mqtt --carrier tcp,quic --peer "$mochi" --scenario throughput --qos 1 --messages 200000
report mqtt-idle mqtt --carrier tcp,tls,quic --peer "$mochi" --scenario idle
report mqtt-vanished mqtt --carrier quic --scenario vanished --size 1024 --messages 20000
report transport transport --peer "quic-go=$out/bin/quicgo"
