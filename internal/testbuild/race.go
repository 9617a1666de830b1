//go:build race

package testbuild

// Race says whether the test runs with the race detector.
const Race = true
