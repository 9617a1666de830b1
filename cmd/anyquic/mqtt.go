package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/anyquic/anyquic/mqtt/auth"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/mqttweb"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/tickets"
)

func newMQTT() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mqtt",
		Short: "Publish and subscribe with MQTT over any carrier",
		Long: `Publish and subscribe with MQTT over any carrier. The URL names it:

  mqtt://HOST:1883        TCP
  mqtts://HOST:8883       TLS
  mqtt+quic://HOST:14567  QUIC
  ws://HOST/mqtt          WebSocket
  wss://HOST/mqtt         WebSocket over HTTPS
  wss+h2://HOST/mqtt      WebSocket on HTTP/2
  wss+h3://HOST/mqtt      WebSocket on HTTP/3
  mqtt+wt://HOST/mqtt     WebTransport

Options are named as those of mosquitto_pub and mosquitto_sub.`,
		Args: cobra.NoArgs,
		RunE: help,
	}
	cmd.AddCommand(newPub(), newSub(), newClients(), newPasswd())
	return cmd
}

// connectFlags are the options that pub and sub share.
type connectFlags struct {
	id, username, password string
	version                string
	keepAlive              time.Duration
	keepSession            bool
	sessionExpiry          time.Duration

	willTopic, willPayload string
	willQoS                uint8
	willRetain             bool

	caFile, certFile, keyFile string
	serverName                string
	insecure                  bool
	scram                     bool

	tickets string

	urls   []string // beside the argument
	follow bool

	queueFlags
	streamFlags
}

func (f *connectFlags) bind(fs *pflag.FlagSet) {
	fs.StringVarP(&f.id, "id", "i", "", "client identifier (default: the broker assigns one)")
	fs.StringVarP(&f.username, "username", "u", "", "user name")
	fs.StringVarP(&f.password, "pw", "P", "", "password; ANYQUIC_PASSWORD in the environment keeps it out of the process list")
	fs.BoolVar(&f.scram, "scram", false, "prove the password by SCRAM-SHA-256 instead of sending it (MQTT 5)")
	fs.StringVarP(&f.version, "protocol-version", "V", "5", "MQTT version: 5, 311 or 31 (also mqttv5, mqttv311, mqttv31)")
	fs.DurationVarP(&f.keepAlive, "keepalive", "k", time.Minute, "keep-alive, whole seconds; negative for none")
	fs.BoolVarP(&f.keepSession, "disable-clean-session", "c", false, "resume the session of this client identifier and keep it afterwards")
	fs.DurationVarP(&f.sessionExpiry, "session-expiry-interval", "x", 0, "how long the broker keeps the session after the connection")
	fs.StringVar(&f.willTopic, "will-topic", "", "topic of the message that the broker publishes if this client vanishes")
	fs.StringVar(&f.willPayload, "will-payload", "", "payload of the will")
	fs.Uint8Var(&f.willQoS, "will-qos", 0, "QoS of the will")
	fs.BoolVar(&f.willRetain, "will-retain", false, "retain the will")
	fs.StringVar(&f.caFile, "cafile", "", "PEM file with the certificates to trust (default the system's)")
	fs.StringVar(&f.certFile, "cert", "", "PEM file with the client's certificate")
	fs.StringVar(&f.keyFile, "key", "", "PEM file with its private key")
	fs.StringVar(&f.serverName, "servername", "", "name to expect in the broker's certificate (default the URL's host)")
	fs.BoolVar(&f.insecure, "insecure", false, "do not verify the broker's certificate: anyone may then read and change what is sent")
	fs.StringArrayVar(&f.urls, "url", nil, "URL of the broker; with several, the first that connects is used, each with a head start of 300ms")
	fs.BoolVar(&f.follow, "follow", false, "go to the server that the broker names in its place")
	fs.StringVar(&f.tickets, "tickets", "", "file that keeps TLS sessions, on TCP and QUIC, for the next command to resume")
	f.queueFlags.bind(fs)
	f.streamFlags.bind(fs)
}

// config returns the client's configuration for urls and those of --url.
func (f *connectFlags) config(cmd *cobra.Command, urls []string) (*client.Config, error) {
	urls = append(urls, f.urls...)
	if len(urls) == 0 {
		return nil, errors.New("a URL is missing: give one, or several with --url")
	}
	version, err := parseVersion(f.version)
	if err != nil {
		return nil, err
	}
	if f.willQoS > 2 {
		return nil, fmt.Errorf("--will-qos %d: use 0, 1 or 2", f.willQoS)
	}
	if f.willTopic == "" && (f.willPayload != "" || f.willQoS != 0 || f.willRetain) {
		return nil, errors.New("--will-topic is missing")
	}
	if f.keepSession && f.id == "" {
		return nil, errors.New("--disable-clean-session needs --id: a session belongs to a client identifier")
	}
	config, err := f.tls()
	if err != nil {
		return nil, err
	}
	quic, err := engineOf(cmd)
	if err != nil {
		return nil, err
	}
	cfg := &client.Config{
		URLs:          urls,
		TLS:           config,
		Dialers:       dialers(quic),
		Version:       version,
		ClientID:      f.id,
		CleanStart:    !f.keepSession,
		KeepAlive:     f.keepAlive,
		SessionExpiry: f.sessionExpiry,
		Username:      f.username,

		FollowServerReference: f.follow,
	}
	if f.keepSession && f.sessionExpiry == 0 {
		cfg.SessionExpiry = client.NeverExpires // as a session without clean session has in 3.1.1
	}
	password := f.password
	if password == "" {
		password = os.Getenv("ANYQUIC_PASSWORD")
	}
	if password != "" {
		cfg.Password = []byte(password)
	}
	if f.scram {
		if f.username == "" || password == "" {
			return nil, errors.New("--scram needs --username and a password")
		}
		if cfg.Auth, err = auth.NewSCRAM(f.username, password); err != nil {
			return nil, err
		}
		cfg.Username, cfg.Password = "", nil
	}
	if f.willTopic != "" {
		cfg.Will = &packet.Will{Topic: f.willTopic, Payload: []byte(f.willPayload), QoS: packet.QoS(f.willQoS), Retain: f.willRetain}
	}
	if err := f.resume(cfg, quic); err != nil {
		return nil, err
	}
	if err := f.streamFlags.apply(cfg); err != nil {
		return nil, err
	}
	return cfg, f.queueFlags.apply(cfg)
}

// dialers are for all carriers beyond TCP and TLS.
func dialers(quic transport.Transport) []client.LinkDialer {
	return []client.LinkDialer{&mqttquic.Dialer{Transport: quic}, &mqttweb.Dialer{Transport: quic}}
}

// resume gives the dialers of cfg, and TLS on TCP, the sessions of --tickets.
func (f *connectFlags) resume(cfg *client.Config, quic transport.Transport) error {
	if f.tickets == "" {
		return nil
	}
	// A session of a server that was not verified must not count as verified.
	file, err := tickets.Open(f.tickets, fmt.Sprintf("%t %q %q %q", f.insecure, f.caFile, f.serverName, f.certFile))
	if err != nil {
		return fmt.Errorf("--tickets: %w", err)
	}
	cfg.TLS.ClientSessionCache = file.TLS()
	cfg.Dialers = []client.LinkDialer{
		&mqttquic.Dialer{Transport: quic, Sessions: file.QUIC(quic.Name())},
		&mqttweb.Dialer{Transport: quic, QUIC: &transport.Config{Sessions: file.QUIC(quic.Name() + " h3")}},
	}
	return nil
}

func (f *connectFlags) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.serverName, InsecureSkipVerify: f.insecure} //nolint:gosec // --insecure asks for it
	if f.caFile != "" {
		pem, err := os.ReadFile(f.caFile)
		if err != nil {
			return nil, fmt.Errorf("--cafile: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--cafile %s: no PEM certificate in it", f.caFile)
		}
	}
	if (f.certFile == "") != (f.keyFile == "") {
		return nil, errors.New("--cert and --key go together: one of them is missing")
	}
	if f.certFile != "" {
		cert, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
		if err != nil {
			return nil, fmt.Errorf("--cert %s --key %s: %w", f.certFile, f.keyFile, err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

func parseVersion(s string) (packet.Version, error) {
	switch strings.TrimPrefix(s, "mqttv") {
	case "5":
		return packet.V5, nil
	case "311", "3.1.1", "4":
		return packet.V311, nil
	case "31", "3.1", "3":
		return packet.V31, nil
	}
	return 0, fmt.Errorf("--protocol-version %q: use 5, 311 or 31", s)
}

func parseQoS(q uint8) (packet.QoS, error) {
	if q > 2 {
		return 0, fmt.Errorf("--qos %d: use 0, 1 or 2", q)
	}
	return packet.QoS(q), nil
}
