#!/usr/bin/env bash
# Measures what is asked of the broker; the broker beside mochi-mqtt, NATS and an
# installed mosquitto, in turn; the QUIC engines beside quic-go by itself, ngtcp2's own
# examples and TLS over TCP; and the HTTP/3 server beside quic-go's. The reports go into
# the folder given (default bench-out). With mqtt behind the folder it measures only what
# is asked of the broker, in $ROUNDS (5). The native engine and the examples are measured
# where they can be built.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-bench-out}
mkdir -p "$out/bin"
bin=$(cd "$out/bin" && pwd)

only=${2:-}
case $only in '' | mqtt) ;; *)
	echo "usage: build/bench.sh [FOLDER [mqtt]]" >&2
	exit 2
	;;
esac

tags=ngtcp2
build/deps.sh openssl || { echo "left out: the native engine" >&2; tags=; }
go build -tags "$tags" -o "$out/bin/anyquic" ./cmd/anyquic
(cd tests/peers && go build -o "$bin" ./mochi ./nats ./mosquitto ./quicgo ./quicgoh3 ./tlstcp ./ngtcp2)
anyquic=$out/bin/anyquic
mochi=mochi=$out/bin/mochi
brokers=(--peer "$mochi" --peer "nats=$out/bin/nats")
if mosquitto=$(PATH=$PATH:/usr/sbin command -v mosquitto); then
	brokers+=(--peer "mosquitto=$out/bin/mosquitto $mosquitto")
else
	echo "left out: mosquitto, which is not installed" >&2
fi

report() { # NAME ARGUMENTS...
	printf '\n== %s\n' "$1" | tee "$out/$1.txt"
	"$anyquic" bench "${@:2}" | tee -a "$out/$1.txt"
}

report mqtt-asked mqtt --all "${brokers[@]}" --rounds "${ROUNDS:-5}" --store "$out" --save "$out/mqtt-asked.json"
[ -z "$only" ] || exit 0
report mqtt-qos0 mqtt --carrier tcp,tls,quic --peer "$mochi" --scenario throughput,latency
# NATS has MQTT 3.1.1 only.
report mqtt-fanout mqtt -V 311 --carrier tcp,quic "${brokers[@]}" --scenario throughput,fanout
report mqtt-qos1 mqtt -V 311 --carrier tcp,quic "${brokers[@]}" --scenario throughput --qos 1 --messages 200000
report mqtt-blocked mqtt --carrier tcp --peer "$mochi" --scenario blocked --rate 500
report mqtt-idle mqtt --carrier tcp,tls,quic --peer "$mochi" --scenario idle
report mqtt-vanished mqtt --carrier quic --scenario vanished --size 1024 --messages 20000

engines=(--engine purego)
loss=("${engines[@]}")
if [ -n "$tags" ]; then
	engines+=(--engine ngtcp2)
	loss+=(--engine ngtcp2 --cc "cubic,bbr")
fi
peers=(--peer "quic-go=$bin/quicgo" --peer "tls-tcp=$bin/tlstcp")
bulk=("${peers[@]}")
if examples=$(build/peers.sh bench); then
	bulk+=(--peer "ngtcp2-examples=$bin/ngtcp2 $examples")
else
	echo "left out: ngtcp2's examples" >&2
fi
report transport-bulk transport "${engines[@]}" "${bulk[@]}" --scenario bulk
report transport transport "${engines[@]}" "${peers[@]}" --scenario pings,streams,handshakes,idle,quiet
report transport-loss transport "${loss[@]}" --scenario loss
report h3 h3 --peer "quic-go=$bin/quicgoh3"
