// Package interop has foreign programs judge ours. Foreign MQTT clients run against
// the program `anyquic serve`, as a user would start it; foreign QUIC clients and
// servers (quic-go, aioquic, ngtcp2's own) against every engine of the build. Its
// tests need the build tag interop and the programs that build/mosquitto.sh and
// build/peers.sh provide; `make test` sees to both.
package interop
