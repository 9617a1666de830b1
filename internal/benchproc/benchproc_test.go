package benchproc

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test's own binary play server and client.
func TestMain(m *testing.M) {
	var err error
	switch os.Getenv("BENCHPROC") {
	case "server":
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
			go serveTCP(l) // ends with the process
			err = Serve(os.Stdin, os.Stdout, Hello{URLs: map[string]string{"tcp": l.Addr().String()}})
		}
	case "client":
		err = ServeClient(os.Stdin, os.Stdout, dialTCP)
	default:
		os.Setenv("GORACE", "atexit_sleep_ms=0") // of the processes
		os.Exit(m.Run())
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

func TestServerAnswersAndEndsWithItsInput(t *testing.T) {
	p := startSelf(t, "server")
	require.NotEmpty(t, p.URLs["tcp"])
	for range 2 {
		m, err := p.Memory()
		require.NoError(t, err)
		require.NotZero(t, m.HeapInuse)
		require.NotZero(t, m.StackInuse)
		require.Positive(t, m.Goroutines)
		if runtime.GOOS == "linux" {
			require.Greater(t, m.RSS, m.InUse(), "the program itself is resident too")
		}
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

func TestAnotherProcessIsMeasured(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only on Linux can it be")
	}
	u, err := UsageOf(os.Getpid())
	require.NoError(t, err)
	require.Positive(t, u.CPU)
	m, err := MemoryOf(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, m.RSS, uint64(1<<20))
	_, err = MemoryOf(1 << 30)
	require.ErrorIs(t, err, os.ErrNotExist)
}
