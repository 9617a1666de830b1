// Package thirdparty knows the licences of what a program of this module may be
// linked with: the C libraries of the manifest, Go modules and Go itself.
package thirdparty

import (
	_ "embed"
	"strings"
)

//go:embed manifest
var manifest string

// licences has a line for each component: its name and the SPDX identifier of
// its licence.
//
//go:embed licences
var licences string

// Licence returns the SPDX identifier of a component's licence: of a C library in
// the manifest by its name, of a Go module by its path, or of "go".
func Licence(component string) (spdx string, ok bool) {
	for line := range strings.Lines(licences) {
		if name, spdx, _ := strings.Cut(strings.TrimSpace(line), " "); name == component {
			return spdx, true
		}
	}
	return "", false
}

// A Library is a C library of the manifest.
type Library struct {
	Name    string
	Version string // the pinned one
	URL     string // of the upstream release
	SPDX    string
}

// Libraries returns those of the manifest, in its order.
func Libraries() []Library {
	var list []Library
	for line := range strings.Lines(manifest) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(key, "[") {
			list = append(list, Library{Name: strings.Trim(key, "[]")})
		}
		if len(list) == 0 {
			continue
		}
		switch last := &list[len(list)-1]; key {
		case "version":
			last.Version = value
		case "url":
			last.URL = value
		case "licence":
			last.SPDX = value
		}
	}
	return list
}
