package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
)

// earlyPolicies are the values of --early-data.
var earlyPolicies = map[string]mqtt.EarlyPolicy{
	"off": mqtt.EarlyOff, "connect": mqtt.EarlyConnect, "idempotent": mqtt.EarlyIdempotent, "all": mqtt.EarlyAll,
}

func parseEarly(s string) (mqtt.EarlyPolicy, error) {
	p, ok := earlyPolicies[s]
	if !ok {
		return 0, fmt.Errorf("--early-data %q: use off, connect, idempotent or all", s)
	}
	return p, nil
}

// streamFlags are the options of pub and sub for carriers with streams.
type streamFlags struct {
	streams string
	early   bool
}

func (f *streamFlags) bind(fs *pflag.FlagSet) {
	fs.StringVar(&f.streams, "streams", "control", "streams to use on QUIC and WebTransport: control, topic (one for each), dedicated (one for each subscription) or hash:N")
	fs.BoolVar(&f.early, "0rtt", false, "send CONNECT with the first packets of a QUIC session that --tickets has; they could be replayed")
}

// apply sets what the flags say. The dialers of cfg have their sessions.
func (f *streamFlags) apply(cfg *client.Config) error {
	var err error
	if cfg.Streams, err = parseStreams(f.streams); err != nil || !f.early {
		return err
	}
	for _, d := range cfg.Dialers {
		if d, ok := d.(*mqttquic.Dialer); ok {
			if d.Sessions == nil {
				return errors.New("--0rtt needs --tickets FILE, for the session to resume")
			}
			cfg.EarlyData, d.EarlyData = true, true
		}
	}
	return nil
}

func parseStreams(s string) (client.StreamPolicy, error) {
	switch s {
	case "control":
		return client.Control, nil
	case "topic":
		return client.PerTopic, nil
	case "dedicated":
		return client.Dedicated, nil
	}
	if rest, ok := strings.CutPrefix(s, "hash:"); ok {
		if n, err := strconv.Atoi(rest); err == nil && n >= 1 && n <= client.MaxHash {
			return client.Hash(n), nil
		}
	}
	return client.StreamPolicy{}, fmt.Errorf("--streams %q: use control, topic, dedicated or hash:N with N from 1 to %d", s, client.MaxHash)
}
