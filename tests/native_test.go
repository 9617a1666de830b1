//go:build ngtcp2 && cgo && linux && !system

package tests

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// This test program has every engine in it, so it stands for all programs.
func TestAProgramNeedsNoLibraryThatIsNotEverywhere(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	f, err := elf.Open(exe)
	require.NoError(t, err)
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	require.NoError(t, err)
	everywhere := []string{"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libresolv.so.2", "libasan.so.8"}
	for _, l := range libraries {
		if !strings.HasPrefix(l, "ld-linux") {
			require.Contains(t, everywhere, l, "all: %v", libraries)
		}
	}

	// Go links with -rdynamic. What a program exports, a library that it loads
	// later would take for its own: an OpenSSL of another version, say.
	exported, err := f.DynamicSymbols()
	require.NoError(t, err)
	for _, s := range exported {
		if s.Section == elf.SHN_UNDEF {
			continue
		}
		for _, prefix := range []string{"SSL_", "EVP_", "CRYPTO_", "OPENSSL_", "wolfSSL_", "ngtcp2_", "nghttp3_", "aq_"} {
			require.False(t, strings.HasPrefix(s.Name, prefix), "%s is exported", s.Name)
		}
	}
}

// Without the libraries, the build says which command makes them.
func TestABuildWithoutTheLibrariesSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join("..", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	for _, pkg := range []string{filepath.Join("ngtcp2", "internal", "capi"), "nghttp3"} {
		require.NoError(t, os.CopyFS(filepath.Join(dir, pkg), os.DirFS(filepath.Join("..", pkg))))
		require.NoError(t, os.RemoveAll(filepath.Join(dir, pkg, "libraries.h")))
		for _, tags := range []string{"ngtcp2", "ngtcp2,wolfssl"} {
			cmd := exec.CommandContext(t.Context(), "go", "build", "-mod=mod", "-tags="+tags, "./"+filepath.ToSlash(pkg))
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "GOFLAGS=", "CGO_CFLAGS=", "CGO_LDFLAGS=")
			out, err := cmd.CombinedOutput()
			require.Error(t, err, tags)
			require.Contains(t, string(out), "the C libraries are missing: run make deps", pkg)
		}
	}
}
