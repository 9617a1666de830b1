// Package interop has foreign programs judge ours. Foreign MQTT clients run against
// the program `anyquic serve`, as a user would start it; foreign QUIC clients and
// servers (quic-go, aioquic, ngtcp2's own) and foreign HTTP/3 clients and servers (curl,
// nginx, aioquic, quic-go, Chromium, Firefox) against every engine of the build. Its
// tests need the build tag interop and the programs that build/mosquitto.sh and
// build/peers.sh provide; `make test` sees to both, and ends with a table of which
// peers ran. Where a program is missing its tests are left out, but in CI (CI=true)
// they fail. What browsers show is kept as pictures in the folder that
// ANYQUIC_SCREENSHOTS names, or in the user's cache.
package interop
