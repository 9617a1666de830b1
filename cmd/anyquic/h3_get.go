package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/tickets"
)

type h3GetFlags struct {
	method   string
	head     bool
	include  bool
	headers  []string
	data     string
	output   string
	remote   bool // -O
	follow   bool
	fail     bool
	versions string
	race     bool
	altSvc   string
	early    bool
	insecure bool
	caFile   string
	timings  bool
	asJSON   bool
	quiet    bool
	maxTime  time.Duration
	tickets  string
}

func newH3Get() *cobra.Command {
	var f h3GetFlags
	cmd := &cobra.Command{
		Use:   "get URL...",
		Short: "Fetch URLs over HTTP/3, or the best version that there is",
		Long: `Fetch URLs over HTTP/3, or the best version that there is.

Without --race or --http a URL is fetched over HTTP/3 alone. With --race, QUIC and TCP
are tried beside each other, and the first connection is used. Options are named as
those of curl. Requests to one server share a connection.

--tickets resumes the session of an earlier run, from a file that only the user can
read; the file may be that of anyquic mqtt pub and sub. --0rtt does so as well, and
sends GET and HEAD before the handshake is complete; a server that will not have it
answers 425, and the request is sent again.`,
		Example: `  anyquic h3 get --insecure https://localhost:8443/
  anyquic h3 get -o /dev/null --timings https://www.example.com/big
  anyquic h3 get -d @body.json -H 'Content-Type: application/json' https://api.example.com/
  anyquic h3 get --race --json -I https://a.example https://b.example
  anyquic h3 get --0rtt https://www.example.com/`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVarP(&f.method, "request", "X", "", "method (default GET, HEAD with -I, POST with -d)")
	fs.BoolVarP(&f.head, "head", "I", false, "fetch and print the header alone")
	fs.BoolVarP(&f.include, "include", "i", false, "print the header before the body")
	fs.StringArrayVarP(&f.headers, "header", "H", nil, "header field, 'Name: value'; may be given several times")
	fs.StringVarP(&f.data, "data", "d", "", "body to send; @FILE sends a file, @- standard input")
	fs.StringVarP(&f.output, "output", "o", "", "file to write the body to (default standard output)")
	fs.BoolVarP(&f.remote, "remote-name", "O", false, "write each body to a file named as in the URL")
	fs.BoolVarP(&f.follow, "location", "L", false, "follow redirects")
	fs.BoolVarP(&f.fail, "fail", "f", false, "a status of 400 or above is an error, and the body is not printed")
	fs.StringVar(&f.versions, "http", "", `versions to use: "auto", or of 1.1, 2 and 3 those with commas between (default 3)`)
	fs.BoolVar(&f.race, "race", false, "try QUIC and TCP beside each other")
	fs.StringVar(&f.altSvc, "alt-svc", "", "file that keeps what servers say about HTTP/3, in curl's format")
	fs.BoolVar(&f.early, "0rtt", false, "resume a session and send early data")
	fs.StringVar(&f.tickets, "tickets", "", "file that keeps TLS sessions, on TCP and QUIC, for the next command to resume (default none, with --0rtt one in the user's cache folder)")
	fs.StringVar(&f.caFile, "cafile", "", "PEM file with the certificates to trust (default the system's)")
	fs.BoolVarP(&f.insecure, "insecure", "k", false, "do not verify the server's certificate: anyone may then read and change what is sent")
	fs.DurationVarP(&f.maxTime, "max-time", "m", 0, "give up a URL after this time (default never)")
	fs.BoolVar(&f.timings, "timings", false, "print how long what took, as a table on standard error")
	fs.BoolVar(&f.asJSON, "json", false, "print an object for each URL, with version, status, header and timings, in place of bodies")
	fs.BoolVarP(&f.quiet, "silent", "s", false, "no progress bar")
	return cmd
}

func (f *h3GetFlags) run(cmd *cobra.Command, urls []string) (err error) {
	if err := f.check(cmd, urls); err != nil {
		return err
	}
	quic, err := engineOf(cmd)
	if err != nil {
		return err
	}
	tr, err := f.transport(quic)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tr.Close()) }()
	client := &http.Client{Transport: tr}
	if !f.follow {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	var reports []*fetched
	for _, u := range urls {
		one := &fetch{flags: f, cmd: cmd, client: client, engine: quic.Name()}
		report, err := one.get(cmd.Context(), u)
		if report != nil {
			reports = append(reports, report)
		}
		if err == nil && f.asJSON {
			err = json.NewEncoder(cmd.OutOrStdout()).Encode(report)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", u, err)
			if f.timings {
				err = errors.Join(err, printTimings(cmd.ErrOrStderr(), reports))
			}
			return err
		}
	}
	if f.timings {
		return printTimings(cmd.ErrOrStderr(), reports)
	}
	return nil
}

// check refuses what does not go together, before anything is sent.
func (f *h3GetFlags) check(cmd *cobra.Command, urls []string) error {
	switch {
	case f.output != "" && f.remote:
		return errors.New("--output and --remote-name exclude each other")
	case f.output != "" && len(urls) > 1:
		return errors.New("--output is for one URL: use --remote-name for several")
	case f.head && cmd.Flags().Changed("data"):
		return errors.New("--head and --data exclude each other")
	case f.race && f.versions != "":
		return errors.New("--race and --http exclude each other: --race tries all versions")
	}
	for _, h := range f.headers {
		if name, _, ok := strings.Cut(h, ":"); !ok || strings.TrimSpace(name) == "" {
			return fmt.Errorf("--header %q: not 'Name: value'", h)
		}
	}
	for _, raw := range urls {
		u, err := url.Parse(raw)
		switch {
		case err != nil:
			return err
		case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
			return fmt.Errorf("%q: not an https:// URL", raw)
		case f.remote && remoteName(u) == "":
			return fmt.Errorf("%q: --remote-name finds no file name in it", raw)
		}
	}
	return nil
}

// remoteName is the file that a URL names, or "".
func remoteName(u *url.URL) string {
	name := path.Base(u.Path)
	if strings.HasSuffix(u.Path, "/") || !filepath.IsLocal(name) || name == "." {
		return ""
	}
	return name
}

func (f *h3GetFlags) transport(quic transport.Transport) (*allhttp.Transport, error) {
	versions := allhttp.HTTP3
	if f.race || f.versions != "" {
		var err error
		if versions, err = allhttp.ParseVersions(f.versions); err != nil {
			return nil, fmt.Errorf("--http: %w", err)
		}
	}
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: f.insecure} //nolint:gosec // the user asked for it
	base.DisableCompression = true                                                                   // what is printed is what was sent
	if f.caFile != "" {
		pem, err := os.ReadFile(f.caFile)
		if err != nil {
			return nil, fmt.Errorf("--cafile: %w", err)
		}
		base.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !base.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--cafile %s: no certificate in it", f.caFile)
		}
	}
	t := &allhttp.Transport{
		Engine: quic, Base: base, Versions: versions, Race: f.race, AltSvcFile: f.altSvc,
		QUIC: &transport.Config{EarlyData: f.early},
	}
	if err := f.resume(t); err != nil {
		return nil, err
	}
	return t, nil
}

// resume gives t the sessions of --tickets, or for --0rtt those of the user.
func (f *h3GetFlags) resume(t *allhttp.Transport) error {
	path := f.tickets
	if path == "" {
		if !f.early {
			return nil
		}
		cache, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("--0rtt needs a file, use --tickets: %w", err)
		}
		folder := filepath.Join(cache, "anyquic")
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return fmt.Errorf("--0rtt needs a file, use --tickets: %w", err)
		}
		path = filepath.Join(folder, "tickets")
	}
	// A session of a server that was not verified must not count as verified.
	file, err := tickets.Open(path, fmt.Sprintf("http %t %q", f.insecure, f.caFile))
	if err != nil {
		return fmt.Errorf("--tickets: %w", err)
	}
	t.Base.TLSClientConfig.ClientSessionCache = file.TLS()
	t.QUIC.Sessions = file.QUIC(t.Engine.Name())
	return nil
}

// request returns the request for a URL. A body from a file is closed with it.
func (f *h3GetFlags) request(ctx context.Context, cmd *cobra.Command, rawURL string) (*http.Request, error) {
	var body io.Reader = http.NoBody
	method := http.MethodGet
	if f.head {
		method = http.MethodHead
	}
	size := int64(-1)
	if cmd.Flags().Changed("data") {
		method = http.MethodPost
		switch name, isFile := strings.CutPrefix(f.data, "@"); {
		case isFile && name == "-":
			body = io.NopCloser(cmd.InOrStdin()) // its length is not known
		case isFile:
			file, err := os.Open(name)
			if err != nil {
				return nil, fmt.Errorf("--data: %w", err)
			}
			if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
				size = info.Size()
			}
			body = file
		default:
			body = strings.NewReader(f.data)
		}
	}
	req, err := http.NewRequestWithContext(ctx, cmp.Or(f.method, method), rawURL, body)
	if err != nil {
		return nil, err
	}
	if size >= 0 {
		req.ContentLength = size
	}
	if req.Body != nil && req.Body != http.NoBody {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl does
	}
	req.Header.Set("Accept", "*/*")
	for _, h := range f.headers {
		name, value, _ := strings.Cut(h, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if strings.EqualFold(name, "Host") {
			req.Host = value
			continue
		}
		req.Header.Set(name, value)
	}
	return req, nil
}
