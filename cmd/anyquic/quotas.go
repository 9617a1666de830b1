package main

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"

	"github.com/anyquic/anyquic/mqtt/broker"
)

// A quotasConfig bounds what clients may take of the broker; 0 is no limit.
type quotasConfig struct {
	ConnsPerListener int     `yaml:"connections-per-listener"`
	ConnsPerAddr     int     `yaml:"connections-per-address"`
	ConnRate         float64 `yaml:"connection-rate"`
	ConnRatePerAddr  float64 `yaml:"connection-rate-per-address"`
	MessageRate      float64 `yaml:"message-rate"`
	ByteRate         float64 `yaml:"byte-rate"`
	SubscribeRate    float64 `yaml:"subscribe-rate"`
	Subscriptions    int     `yaml:"total-subscriptions"`

	MessageRatePerAddr     float64 `yaml:"message-rate-per-address"`
	ByteRatePerAddr        float64 `yaml:"byte-rate-per-address"`
	MessageRatePerListener float64 `yaml:"message-rate-per-listener"`
	ByteRatePerListener    float64 `yaml:"byte-rate-per-listener"`
	TotalMessageRate       float64 `yaml:"total-message-rate"`
	TotalByteRate          float64 `yaml:"total-byte-rate"`

	Pending        int     `yaml:"pending-connections"`
	PendingPerAddr int     `yaml:"pending-connections-per-address"`
	FailedLogins   float64 `yaml:"failed-logins-per-address"`
	IPv6Prefix     int     `yaml:"ipv6-prefix"`
	Allow          string  `yaml:"allow-networks"` // with commas
	Deny           string  `yaml:"deny-networks"`  // likewise
}

func defaultQuotas(q *broker.Quotas) quotasConfig {
	return quotasConfig{
		ConnsPerListener: q.ConnsPerListener, ConnsPerAddr: q.ConnsPerAddr,
		ConnRate: q.ConnRate, ConnRatePerAddr: q.ConnRatePerAddr,
		MessageRate: q.MessageRate, ByteRate: q.ByteRate, SubscribeRate: q.SubscribeRate,
		Subscriptions: q.Subscriptions,
		Pending:       q.Pending, PendingPerAddr: q.PendingPerAddr,
		FailedLogins: q.FailedLogins, IPv6Prefix: q.IPv6Prefix,
	}
}

func (c *quotasConfig) bind(fs *pflag.FlagSet) {
	fs.IntVar(&c.ConnsPerListener, "connections-per-listener", c.ConnsPerListener, "clients at once of each listener, 0 for no limit")
	fs.IntVar(&c.ConnsPerAddr, "connections-per-address", c.ConnsPerAddr, "clients at once of one address, or /64 of IPv6; loopback is not counted")
	fs.Float64Var(&c.ConnRate, "connection-rate", c.ConnRate, "new connections a second, 0 for no limit")
	fs.Float64Var(&c.ConnRatePerAddr, "connection-rate-per-address", c.ConnRatePerAddr, "new connections a second of one address, or /64 of IPv6")
	fs.Float64Var(&c.MessageRate, "message-rate", c.MessageRate, "messages a second that one client may publish; a faster one is slowed down; 0 for no limit")
	fs.Float64Var(&c.ByteRate, "byte-rate", c.ByteRate, "bytes a second that one client may send, likewise")
	fs.Float64Var(&c.SubscribeRate, "subscribe-rate", c.SubscribeRate, "filters a second that one client may subscribe to, with 60 seconds' worth at once, likewise")
	fs.IntVar(&c.Subscriptions, "total-subscriptions", c.Subscriptions, "subscriptions of all clients together, 0 for no limit")
	fs.Float64Var(&c.MessageRatePerAddr, "message-rate-per-address", c.MessageRatePerAddr, "messages a second that the clients of one address may publish together, likewise slowed down; 0 for no limit")
	fs.Float64Var(&c.ByteRatePerAddr, "byte-rate-per-address", c.ByteRatePerAddr, "bytes a second that the clients of one address may send together, likewise")
	fs.Float64Var(&c.MessageRatePerListener, "message-rate-per-listener", c.MessageRatePerListener, "messages a second that the clients of each listener may publish together, likewise")
	fs.Float64Var(&c.ByteRatePerListener, "byte-rate-per-listener", c.ByteRatePerListener, "bytes a second that the clients of each listener may send together, likewise")
	fs.Float64Var(&c.TotalMessageRate, "total-message-rate", c.TotalMessageRate, "messages a second that all clients may publish together, likewise")
	fs.Float64Var(&c.TotalByteRate, "total-byte-rate", c.TotalByteRate, "bytes a second that all clients may send together, likewise")
	fs.IntVar(&c.Pending, "pending-connections", c.Pending, "connections at once whose CONNECT or login is not complete, 0 for no limit")
	fs.IntVar(&c.PendingPerAddr, "pending-connections-per-address", c.PendingPerAddr, "those of one address")
	fs.Float64Var(&c.FailedLogins, "failed-logins-per-address", c.FailedLogins, "logins a second of one address that may fail, with 300 seconds' worth at once; 0 for no limit")
	fs.IntVar(&c.IPv6Prefix, "ipv6-prefix", c.IPv6Prefix, "bits of an IPv6 address that count as one address")
	fs.StringVar(&c.Allow, "allow-networks", c.Allow, "networks (CIDR, with commas) that may connect; default all")
	fs.StringVar(&c.Deny, "deny-networks", c.Deny, "networks (CIDR, with commas) that may not connect")
}

func (c *quotasConfig) check() error {
	for flag, v := range map[string]float64{
		"connections-per-listener": float64(c.ConnsPerListener), "connections-per-address": float64(c.ConnsPerAddr),
		"connection-rate": c.ConnRate, "connection-rate-per-address": c.ConnRatePerAddr,
		"message-rate": c.MessageRate, "byte-rate": c.ByteRate, "subscribe-rate": c.SubscribeRate,
		"total-subscriptions": float64(c.Subscriptions), "pending-connections": float64(c.Pending),
		"pending-connections-per-address": float64(c.PendingPerAddr), "failed-logins-per-address": c.FailedLogins,
		"message-rate-per-address": c.MessageRatePerAddr, "byte-rate-per-address": c.ByteRatePerAddr,
		"message-rate-per-listener": c.MessageRatePerListener, "byte-rate-per-listener": c.ByteRatePerListener,
		"total-message-rate": c.TotalMessageRate, "total-byte-rate": c.TotalByteRate,
	} {
		if v < 0 || math.IsNaN(v) {
			return fmt.Errorf("--%s must be 0 (no limit) or more", flag)
		}
	}
	if c.IPv6Prefix < 1 || c.IPv6Prefix > 128 {
		return fmt.Errorf("--ipv6-prefix %d: must be 1 to 128", c.IPv6Prefix)
	}
	for flag, list := range map[string]string{"allow-networks": c.Allow, "deny-networks": c.Deny} {
		if _, err := networks(list); err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
	}
	return nil
}

// networks returns those that are written as 192.0.2.0/24, or as an address alone, with
// commas between.
func networks(list string) (all []netip.Prefix, err error) {
	for s := range strings.SplitSeq(list, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if a, notOne := netip.ParseAddr(s); notOne == nil && a.Zone() == "" {
			p, err = a.Prefix(a.BitLen())
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither a network, as 192.0.2.0/24, nor an address", s)
		}
		all = append(all, p)
	}
	return all, nil
}

// quotas returns c in the broker's terms, in which none is negative.
func (c *quotasConfig) quotas() broker.Quotas {
	count := func(v int) int {
		if v == 0 {
			return -1
		}
		return v
	}
	rate := func(v float64) float64 {
		if v == 0 {
			return -1
		}
		return v
	}
	allow, _ := networks(c.Allow) // check has seen them
	deny, _ := networks(c.Deny)
	return broker.Quotas{
		Allow: allow, Deny: deny, IPv6Prefix: c.IPv6Prefix,
		Pending: count(c.Pending), PendingPerAddr: count(c.PendingPerAddr), FailedLogins: rate(c.FailedLogins),
		MessageRatePerAddr: rate(c.MessageRatePerAddr), ByteRatePerAddr: rate(c.ByteRatePerAddr),
		MessageRatePerListener: rate(c.MessageRatePerListener), ByteRatePerListener: rate(c.ByteRatePerListener),
		TotalMessageRate: rate(c.TotalMessageRate), TotalByteRate: rate(c.TotalByteRate),
		ConnsPerListener: count(c.ConnsPerListener), ConnsPerAddr: count(c.ConnsPerAddr),
		ConnRate: rate(c.ConnRate), ConnRatePerAddr: rate(c.ConnRatePerAddr),
		MessageRate: rate(c.MessageRate), ByteRate: rate(c.ByteRate), SubscribeRate: rate(c.SubscribeRate),
		Subscriptions: count(c.Subscriptions),
	}
}
