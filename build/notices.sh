#!/usr/bin/env bash
# Prints the licences and copyright notices to pass on with the program of a build:
# ours, Go's, those of the Go modules that it is linked with, and those of the C
# libraries, which build/deps.sh takes from their sources.
#
#   build/notices.sh [TAGS]   TAGS as for go build; GOOS, GOARCH and CGO_ENABLED too
#
# The C library of the system is not among them, nor are the libraries of the
# distribution in a build with the tag system: those are linked when the program
# starts, unless it was linked with -static.
set -euo pipefail
cd "$(dirname "$0")/.."
tags=${1:-}

die() { printf 'notices: %s\n' "$*" >&2; exit 1; }

# texts FOLDER TOP prints the files with licences in the folder and those above
# it, up to TOP.
texts() {
	local dir=$1 file
	while :; do
		for file in "$dir"/LICEN[CS]E* "$dir"/Licen[cs]e* "$dir"/COPYING* "$dir"/NOTICE* "$dir"/PATENTS*; do
			if [ -f "$file" ]; then printf '%s\n' "$file"; fi
		done
		if [ "$dir" = "$2" ] || [ "$dir" = / ]; then break; fi
		dir=${dir%/*}
	done
}

# component NAME FILE... prints a section.
component() {
	local name=$1 file
	shift
	[ $# -gt 0 ] || die "$name: no licence was found"
	printf '\n================================================================\n%s\n================================================================\n' "$name"
	for file; do
		printf '\n'
		cat "$file"
	done
}

# A line for each package: of other modules path, version, the module's folder and
# the package's, with tabs between; else its import path.
list=$(go list -deps -tags "$tags" -f '{{with .Module}}{{if .Main}}{{$.ImportPath}}{{else}}{{.Path}}{{"\t"}}{{or .Version "-"}}{{"\t"}}{{.Dir}}{{"\t"}}{{$.Dir}}{{end}}{{else}}{{.ImportPath}}{{end}}' ./cmd/anyquic)
printf 'The program anyquic, what it is linked with (go build -tags "%s"), and their licences.\n' "$tags"
component anyquic "$PWD/LICENSE"

go=$(go env GOROOT)
[ -f "$go/LICENSE" ] || die "Go's licence is not in $go: this distribution keeps it elsewhere"
component "go $(go env GOVERSION | sed 's/^go//')" "$go/LICENSE" "$go/PATENTS"

if [[ $'\n'$list$'\n' == *$'\n'github.com/anyquic/anyquic/ngtcp2/internal/capi$'\n'* ]]; then
	case ",${tags// /,}," in
	*,system,*) libraries= ;;
	*,wolfssl,*) libraries="ngtcp2 nghttp3 wolfssl" ;;
	*) libraries="ngtcp2 nghttp3 openssl" ;;
	esac
	for library in $libraries; do
		[ -f "build/out/licences/$library" ] || build/deps.sh "${libraries##* }"
		version=$(awk -v name="$library" '{ sub(/_.*/, "", $1) } $1 == name { print $3; exit }' build/out/.deps)
		component "$library $version" "build/out/licences/$library"
	done
fi

# packages MODULE prints the folders of its packages that are linked.
packages() { printf '%s\n' "$list" | awk -F '\t' -v path="$1" 'NF == 4 && $1 == path { print $4 }'; }

printf '%s\n' "$list" | awk -F '\t' -v OFS='\t' 'NF == 4 { print $1, $2, $3 }' | LC_ALL=C sort -u | while IFS=$'\t' read -r path version top; do
	files=()
	while read -r file; do
		if [ -n "$file" ]; then files+=("$file"); fi
	done <<<"$(packages "$path" | while read -r dir; do texts "$dir" "$top"; done | LC_ALL=C sort -u)"
	component "$path $version" ${files[@]+"${files[@]}"}
done
