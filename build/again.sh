# Tries again what a network, a mirror or a registry can fail at once. Read by the
# scripts that fetch something.
# shellcheck shell=bash

# again COMMAND... runs it up to four times, with longer and longer pauses, until it
# succeeds. It has to be such that it can begin anew.
again() {
	local pause
	for pause in 5 15 30; do
		if "$@"; then return; fi
		say "that has failed, and is tried again in $pause s: ${*:1:8}"
		sleep "$pause"
	done
	"$@"
}

# apt_root are options for an apt-get that changes this machine: it waits for another one,
# and asks a mirror again by itself.
# shellcheck disable=SC2034 # for who reads this
apt_root=(-o DPkg::Lock::Timeout=600 -o Acquire::Retries=3)
