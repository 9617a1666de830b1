package benchproc

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test's own binary play the server.
func TestMain(m *testing.M) {
	if os.Getenv("BENCHPROC_SERVER") == "yes" {
		if err := Serve(os.Stdin, os.Stdout, Hello{URLs: map[string]string{"tcp": "mqtt://127.0.0.1:1"}}); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestServerAnswersAndEndsWithItsInput(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "BENCHPROC_SERVER=yes")
	p, err := Start(cmd)
	require.NoError(t, err)
	require.Equal(t, "mqtt://127.0.0.1:1", p.URLs["tcp"])

	for range 2 {
		m, err := p.Memory()
		require.NoError(t, err)
		require.NotZero(t, m.HeapInuse)
		require.NotZero(t, m.StackInuse)
		require.Positive(t, m.Goroutines)
	}
	require.NoError(t, p.Stop())
	require.NoError(t, p.Stop())
}

func TestServerThatSaysNothingIsAnError(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	_, err = Start(exec.Command(self, "-test.run=^$"))
	require.ErrorContains(t, err, "did not say where it listens")
}
