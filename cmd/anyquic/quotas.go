package main

import (
	"fmt"
	"math"

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
}

func defaultQuotas(q *broker.Quotas) quotasConfig {
	return quotasConfig{
		ConnsPerListener: q.ConnsPerListener, ConnsPerAddr: q.ConnsPerAddr,
		ConnRate: q.ConnRate, ConnRatePerAddr: q.ConnRatePerAddr,
		MessageRate: q.MessageRate, ByteRate: q.ByteRate, SubscribeRate: q.SubscribeRate,
		Subscriptions: q.Subscriptions,
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
}

func (c *quotasConfig) check() error {
	for flag, v := range map[string]float64{
		"connections-per-listener": float64(c.ConnsPerListener), "connections-per-address": float64(c.ConnsPerAddr),
		"connection-rate": c.ConnRate, "connection-rate-per-address": c.ConnRatePerAddr,
		"message-rate": c.MessageRate, "byte-rate": c.ByteRate, "subscribe-rate": c.SubscribeRate,
		"total-subscriptions": float64(c.Subscriptions),
	} {
		if v < 0 || math.IsNaN(v) {
			return fmt.Errorf("--%s must be 0 (no limit) or more", flag)
		}
	}
	return nil
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
	return broker.Quotas{
		ConnsPerListener: count(c.ConnsPerListener), ConnsPerAddr: count(c.ConnsPerAddr),
		ConnRate: rate(c.ConnRate), ConnRatePerAddr: rate(c.ConnRatePerAddr),
		MessageRate: rate(c.MessageRate), ByteRate: rate(c.ByteRate), SubscribeRate: rate(c.SubscribeRate),
		Subscriptions: count(c.Subscriptions),
	}
}
