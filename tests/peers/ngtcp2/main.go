// Command ngtcp2 makes a peer to measure of ngtcp2's own example programs,
// osslserver and osslclient in the folder given, as build/peers.sh bench builds
// them: it runs them and speaks the protocol of internal/benchproc for them. They
// speak HTTP/3, a request for each process, so it can only do bulk.
//
//	ngtcp2 [-cc NAME] FOLDER          a server
//	ngtcp2 [-cc NAME] FOLDER client   a client
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/internal/selfcert"
	"github.com/anyquic/anyquic/tests/peers/foreign"
)

// The limits are those of the engines.
var windows = []string{"--max-stream-window=6M", "--max-window=15M"}

func main() {
	cc := flag.String("cc", "cubic", "congestion control")
	flag.Parse()
	temp, err := os.MkdirTemp("", "ngtcp2")
	if err != nil {
		log.Fatal(err)
	}
	options := append(windows, "-q", "--cc="+*cc)
	switch folder := flag.Arg(0); {
	case flag.NArg() == 1:
		err = server(filepath.Join(folder, "osslserver"), temp, options)
	case flag.NArg() == 2 && flag.Arg(1) == "client":
		c := &client{program: filepath.Join(folder, "osslclient"), temp: temp, options: options}
		err = benchproc.Answer(os.Stdin, os.Stdout, benchproc.Hello{}, c.do)
	default:
		err = errors.New("usage: ngtcp2 [-cc NAME] FOLDER [client]")
	}
	if err = errors.Join(err, os.RemoveAll(temp)); err != nil {
		log.Fatal(err)
	}
}

func server(program, temp string, options []string) error {
	cert, err := selfcert.New(time.Now())
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	keyFile, certFile := filepath.Join(temp, "key.pem"), filepath.Join(temp, "cert.pem")
	err = errors.Join(
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600),
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600))
	if err != nil {
		return err
	}
	port, err := foreign.FreePort("udp")
	if err != nil {
		return err
	}
	args := append(options, "--max-dyn-length=64G", "-d", temp, "127.0.0.1", strconv.Itoa(port), keyFile, certFile)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	return foreign.Serve(exec.Command(program, args...), "udp", port, benchproc.Hello{URLs: map[string]string{"quic": addr}})
}

// A client runs osslclient for each request.
type client struct {
	program, temp string
	options       []string
	addr          string
	used          time.Duration // by all runs that count
	startup       time.Duration // of a run that asks for one byte
	startupCPU    time.Duration
}

func (c *client) do(req *benchproc.Request) (any, error) {
	switch req.Do {
	case benchproc.DoUsage:
		return benchproc.Usage{CPU: c.used}, nil
	case benchproc.DoConnect:
		// What it takes to start, shake hands and end is not bulk.
		c.addr = req.Addr
		r, err := c.run(1, 0, "")
		c.startup, c.startupCPU = r.took, r.cpu
		return nil, err
	case benchproc.DoUpload:
		file := filepath.Join(c.temp, "upload")
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, req.N)); err != nil {
			return nil, err
		}
		return c.bulk(1, req.N, "--data="+file)
	case benchproc.DoDownload:
		return c.bulk(req.N, 0, "")
	}
	return nil, errors.ErrUnsupported
}

func (c *client) bulk(download, upload int64, option string) (benchproc.Result, error) {
	r, err := c.run(download, upload, option)
	c.used += r.cpu - c.startupCPU
	return benchproc.Result{Took: r.took - c.startup, Packets: r.packets}, err
}

// A ran is what one run took.
type ran struct {
	took, cpu time.Duration
	packets   uint64
}

// run asks the server for so many bytes, perhaps sending a file, and checks by the
// client's statistics that they came: its status is 0 in any case.
func (c *client) run(download, upload int64, option string) (r ran, err error) {
	host, port, err := net.SplitHostPort(c.addr)
	if err != nil {
		return r, err
	}
	args := append([]string{"--show-stat", "--exit-on-all-streams-close"}, c.options...)
	if option != "" {
		args = append(args, option)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, append(args, host, port, fmt.Sprintf("https://localhost:%s/%d", port, download))...)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	r.took = time.Since(start)
	if err != nil {
		return r, fmt.Errorf("%s: %w: %s", c.program, err, out)
	}
	r.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	stats := statistics(bytes.NewReader(out))
	r.packets = uint64(stats["pkt_sent"] + stats["pkt_recv"])
	if stats["bytes_recv"] < download || stats["bytes_sent"] < upload {
		return r, fmt.Errorf("%s: %d bytes came and %d went, of %d and %d: %s", c.program, stats["bytes_recv"], stats["bytes_sent"], download, upload, out)
	}
	return r, nil
}

// statistics returns the whole numbers of lines such as pkt_sent=97.
func statistics(r io.Reader) map[string]int64 {
	stats := make(map[string]int64)
	for lines := bufio.NewScanner(r); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "=")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			stats[name] = n
		}
	}
	return stats
}
