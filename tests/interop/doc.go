// Package interop runs foreign MQTT clients against the program `anyquic serve`,
// as a user would start it. Its tests need mosquitto_pub and mosquitto_sub and
// the build tag interop; `make test` installs the former and sets the latter.
package interop
